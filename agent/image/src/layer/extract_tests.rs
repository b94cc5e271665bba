use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Owners, devices and overlay attributes need root.
#[allow(clippy::print_stdout)]
fn root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let required = std::env::var_os("SHOAL_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
        assert!(!required, "this test needs root");
        println!("SKIPPED: needs root");
    }
    is_root
}

/// A raw archive: names go in as they are, which `tar::Builder` would refuse.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn entry(mut self, kind: u8, path: &[u8], link: &[u8], data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        self.raw(header, data)
    }

    fn raw(&mut self, mut header: tar::Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        Self(std::mem::take(&mut self.0))
    }

    fn dir(self, path: &str) -> Self {
        self.entry(b'5', path.as_bytes(), b"", b"")
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(b'0', path.as_bytes(), b"", data.as_bytes())
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path.as_bytes(), target.as_bytes(), b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path.as_bytes(), target.as_bytes(), b"")
    }

    /// A pax header for the next entry.
    fn pax(self, key: &str, value: &[u8]) -> Self {
        let body = [key.as_bytes(), b"=", value, b"\n"].concat();
        let digits = (1..).find(|n| (body.len() + 1 + n).to_string().len() == *n).unwrap();
        let length = (body.len() + 1 + digits).to_string();
        self.entry(b'x', b"pax", b"", &[length.as_bytes(), b" ", &body].concat())
    }

    /// Unpacks into `root/layer`, so that there is something outside.
    fn unpack(self) -> (TempDir, Result<u64, ExtractError>) {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(folder.path().join("victim"), "untouched").unwrap();
        let result = extract(&mut Archive::new(&self.0[..]), &layer);
        let around: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(around.len(), 2, "something was made outside: {around:?}");
        let victim = fs::metadata(folder.path().join("victim")).unwrap();
        assert_eq!((victim.len(), victim.nlink()), (9, 1), "the file outside was touched");
        (folder, result)
    }

    fn unpacked(self) -> TempDir {
        let (folder, result) = self.unpack();
        result.unwrap();
        folder
    }
}

fn read(folder: &TempDir, path: &str) -> String {
    fs::read_to_string(folder.path().join("layer").join(path)).unwrap()
}

fn stat(folder: &TempDir, path: &str) -> fs::Metadata {
    fs::symlink_metadata(folder.path().join("layer").join(path)).unwrap()
}

fn xattr(folder: &TempDir, path: &str, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let path = folder.path().join("layer").join(path);
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(folder: &TempDir, path: &str) -> bool {
    let stat = stat(folder, path);
    stat.file_type().is_char_device() && stat.rdev() == 0
}

#[test]
fn everything_that_a_layer_can_hold_comes_out_as_it_went_in() {
    if !root() {
        return;
    }
    let mut header = tar::Header::new_gnu();
    header.set_path("bin/su").unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_234_567_890);
    header.set_size(2);
    let mut device = tar::Header::new_gnu();
    device.set_path("dev/null").unwrap();
    device.set_entry_type(tar::EntryType::Char);
    device.set_mode(0o666);
    device.set_uid(0);
    device.set_gid(5);
    device.set_mtime(1);
    device.set_size(0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    let folder = Raw::default()
        .dir("./")
        .dir("bin/")
        .raw(header, b"su")
        .hard_link("bin/sudo", "/bin/su")
        .symlink("sbin", "/bin")
        .raw(device, b"")
        .entry(b'6', b"run/pipe", b"", b"")
        .file("bin/sh", "shell")
        .unpacked();
    let su = stat(&folder, "bin/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 7, 8));
    assert_eq!((su.mtime(), su.ino()), (1_234_567_890, stat(&folder, "bin/sudo").ino()));
    let null = stat(&folder, "dev/null");
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.gid(), null.mode() & 0o777), (0x103, 5, 0o666));
    assert!(stat(&folder, "run/pipe").file_type().is_fifo());
    assert_eq!(fs::read_link(folder.path().join("layer/sbin")).unwrap().as_os_str(), "/bin");
    assert_eq!(read(&folder, "bin/sh"), "shell");
    // Set after everything in them: making files changes a directory's time.
    assert_eq!(
        (stat(&folder, "bin").mtime(), stat(&folder, "").mtime()),
        (1_000_000_000, 1_000_000_000)
    );
}

#[test]
fn capabilities_survive_and_overlay_attributes_do_not() {
    if !root() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let folder = Raw::default()
        .pax("SCHILY.xattr.security.capability", &capability)
        .file("ping", "x")
        .pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
        .dir("a")
        .pax("SCHILY.xattr.user.note", b"line\nline")
        .file("a/b", "x")
        .unpacked();
    assert_eq!(xattr(&folder, "ping", "security.capability").unwrap(), capability);
    assert_eq!(xattr(&folder, "a", "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&folder, "a/b", "user.note").unwrap(), b"line\nline");
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !root() {
        return;
    }
    let folder = Raw::default()
        .file("etc/.wh.passwd", "")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "x")
        .file(".wh..wh.plnk/1.2", "")
        // Named before and after a thing of its own.
        .file(".wh.dir", "")
        .file("dir/inside", "x")
        .dir("late")
        .file(".wh.late", "")
        .file("own", "x")
        .file(".wh.own", "")
        .unpacked();
    assert!(is_whiteout(&folder, "etc/passwd"));
    assert_eq!(xattr(&folder, "var", "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(read(&folder, "var/new"), "x");
    for directory in ["dir", "late"] {
        assert!(stat(&folder, directory).is_dir());
        assert_eq!(xattr(&folder, directory, "trusted.overlay.opaque").unwrap(), b"y");
    }
    assert_eq!(read(&folder, "own"), "x");
    assert!(!folder.path().join("layer/etc/.wh.passwd").exists());
}

#[test]
fn links_lead_nowhere_outside() {
    if !root() {
        return;
    }
    // Each would write to or link the file beside the layer, were links or dots followed.
    let through_absolute = Raw::default().symlink("a", "/").file("a/victim", "x").unpacked();
    assert_eq!(read(&through_absolute, "victim"), "x");
    let through_dots = Raw::default().symlink("a", "../../..").file("a/victim", "x").unpacked();
    assert_eq!(read(&through_dots, "victim"), "x");
    let onto = Raw::default().symlink("a", "../victim").file("a", "x").unpacked();
    assert_eq!(read(&onto, "a"), "x");
    let twice = Raw::default().symlink("a", "b").symlink("b", "..").dir("a/b").unpacked();
    assert!(stat(&twice, "b").is_dir());
    let absolute = Raw::default().file("/victim", "x").unpacked();
    assert_eq!(read(&absolute, "victim"), "x");
    for bad in [
        Raw::default().file("../victim", "x"),
        Raw::default().file("a/../../victim", "x"),
        Raw::default().dir(".."),
        Raw::default().file("./", "x").file(".", "x"),
        Raw::default().file("a/.wh...", "").file("a/.wh..", ""),
        Raw::default().hard_link("a", "../victim"),
        Raw::default().symlink("b", "..").hard_link("a", "b/victim"),
        Raw::default().hard_link("a", "/victim"),
        Raw::default()
            .symlink("a", "/proc/self/root")
            .file("a/victim", "x")
            .hard_link("b", "missing"),
    ] {
        let (_folder, result) = bad.unpack();
        assert!(result.is_err());
    }
}

#[test]
fn a_hard_link_to_a_link_is_the_link_itself() {
    let folder =
        Raw::default().symlink("a", "../victim").hard_link("b", "a").file("b", "x").unpacked();
    assert!(stat(&folder, "a").is_symlink());
    assert_eq!(read(&folder, "b"), "x");
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let folder = Raw::default()
        .file("a", "old")
        .file("a", "new")
        .dir("d")
        .file("d/inside", "x")
        .file("d", "now a file")
        .file("e", "x")
        .dir("e")
        .file("e/inside", "y")
        .dir("real")
        .symlink("l", "real")
        .file("l/through", "x")
        .dir("l")
        .file("l/own", "y")
        .hard_link("a", "./a")
        .unpacked();
    assert_eq!(read(&folder, "a"), "new");
    assert_eq!(read(&folder, "d"), "now a file");
    assert_eq!(read(&folder, "e/inside"), "y");
    assert_eq!(read(&folder, "real/through"), "x");
    assert_eq!(read(&folder, "l/own"), "y");
    assert!(!folder.path().join("layer/real/own").exists());
}

#[test]
fn long_names_and_other_dialects_are_read() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let folder = Raw(builder.into_inner().unwrap()).unpacked();
    assert_eq!(read(&folder, &long), "x");
    let folder = Raw::default()
        .pax("path", "p/\u{fc}".repeat(60).as_bytes())
        .pax("mtime", b"12.5")
        .file("short", "y")
        .entry(b'\0', b"old/", b"", b"")
        .entry(b'g', b"global", b"", b"19 comment=anything"[..18].as_ref())
        .unpack();
    assert!(folder.1.is_err(), "a broken global header is not passed over");
    assert_eq!(read(&folder.0, &"p/\u{fc}".repeat(60)), "y");
    assert_eq!(stat(&folder.0, &"p/\u{fc}".repeat(60)).mtime_nsec(), 500_000_000);
    assert!(stat(&folder.0, "old").is_dir());
}

#[test]
fn holes_stay_holes() {
    let mut old = tar::Header::new_gnu();
    old.set_path("old").unwrap();
    old.set_entry_type(tar::EntryType::GNUSparse);
    old.set_mode(0o600);
    old.set_uid(0);
    old.set_gid(0);
    old.set_size(6);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.set_real_size(10 << 20);
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(2);
    gnu.sparse[1].set_offset(5 << 20);
    gnu.sparse[1].set_length(4);
    let mut map = b"2\n4096\n3\n1048576\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let folder = Raw::default()
        .raw(old, b"ABCDEF")
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.name", b"new")
        .pax("GNU.sparse.realsize", b"2097152")
        .entry(b'0', b"GNUSparseFile.0/new", b"", &map)
        .unpacked();
    let old = fs::read(folder.path().join("layer/old")).unwrap();
    assert_eq!((&old[..3], &old[5 << 20..(5 << 20) + 5]), (&b"AB\0"[..], &b"CDEF\0"[..]));
    assert_eq!(old.len(), 10 << 20);
    assert!(stat(&folder, "old").blocks() * 512 < 1 << 20, "holes take space");
    let new = fs::read(folder.path().join("layer/new")).unwrap();
    assert_eq!((&new[4096..4099], &new[1 << 20..(1 << 20) + 2]), (&b"abc"[..], &b"de"[..]));
    assert_eq!(new.len(), 2 << 20);
}

#[test]
fn damaged_archives_are_refused() {
    let whole = Raw::default().file("a", "content").0;
    let mut checksum = whole.clone();
    checksum[150] ^= 1;
    let mut huge = tar::Header::new_gnu();
    huge.set_entry_type(tar::EntryType::GNULongName);
    huge.set_size(1 << 40);
    for (bytes, word) in [
        (whole[..300].to_vec(), "ends in the middle"),
        (whole[..515].to_vec(), "ends in the middle"),
        (checksum, "checksum"),
        (b"not a tar archive at all".repeat(100), "checksum"),
        (Raw::default().raw(huge, b"").0, "more than any file needs"),
        (Raw::default().entry(b'Z', b"a", b"", b"").0, "type 'Z'"),
        (Raw::default().pax("path", b"a\0b").file("x", "").0, "outside"),
        (Raw::default().pax("path", b"x").0, "ends in the middle"),
    ] {
        let (_folder, result) = Raw(bytes).unpack();
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn an_archive_without_an_end_or_with_more_behind_it_is_whole() {
    let mut bytes = Raw::default().file("a", "x").0;
    assert_eq!(read(&Raw(bytes.clone()).unpacked(), "a"), "x");
    bytes.extend_from_slice(&[0; 1024]);
    bytes.extend_from_slice(b"what follows the end is not looked at");
    assert_eq!(read(&Raw(bytes).unpacked(), "a"), "x");
    Raw::default().unpacked();
}

fn name() -> impl Strategy<Value = String> {
    let part =
        prop_oneof!["[ab]", Just("..".to_owned()), Just(".".to_owned()), Just(".wh.a".to_owned())];
    (any::<bool>(), proptest::collection::vec(part, 1..5)).prop_map(|(absolute, parts)| {
        format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// `Raw::unpack` looks at what is around the layer, whether the archive is refused or not.
    #[test]
    fn no_archive_reaches_outside(
        entries in proptest::collection::vec((0..6u8, name(), name()), 1..12)
    ) {
        let archive = entries.iter().fold(Raw::default(), |raw, (kind, path, link)| match kind {
            0 => raw.file(path, "x"),
            1 => raw.dir(path),
            2 => raw.symlink(path, &link.replace(['a', 'b'], "..")),
            3 => raw.symlink(path, link),
            4 => raw.hard_link(path, &link.replace('b', "victim")),
            _ => raw.hard_link(path, link),
        });
        let _ = archive.unpack();
    }

    #[test]
    fn damaged_bytes_are_read_or_refused(
        at in 0..1536usize, value in any::<u8>(), fix in any::<bool>()
    ) {
        let mut bytes = Raw::default().pax("path", b"a/b").file("x", "content").0;
        bytes[at] = value;
        if fix {
            let mut header = tar::Header::new_gnu();
            let start = at / 512 * 512;
            header.as_mut_bytes().copy_from_slice(&bytes[start..start + 512]);
            header.set_cksum();
            bytes[start..start + 512].copy_from_slice(header.as_bytes());
        }
        let _ = Raw(bytes).unpack();
    }
}
