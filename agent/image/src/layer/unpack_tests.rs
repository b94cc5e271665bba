use std::fs;
use std::io::Write;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;

fn archive(data: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", data).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that don't compress away.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Feeds `bytes` in pieces. Returns what came of it, and the folder with `fs` and `blob`.
fn run(
    bytes: &[u8],
    piece: usize,
    end: bool,
    expected: Expected,
) -> (Result<Unpacked, LayerError>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("fs");
    fs::create_dir(&root).unwrap();
    let blob = File::create(folder.path().join("blob")).unwrap();
    let (feed, source) = mpsc::channel(2);
    let pieces: Vec<Bytes> = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
    let sender = std::thread::spawn(move || {
        for piece in pieces {
            if feed.blocking_send(Feed::Data(piece)).is_err() {
                return;
            }
        }
        if end {
            let _ = feed.blocking_send(Feed::End);
        }
    });
    let result = unpack(source, blob, &root, expected);
    sender.join().unwrap();
    (result, folder)
}

fn expected(blob: &[u8], tar: &[u8]) -> Expected {
    Expected { blob: Some((Digest::of(blob), blob.len() as u64)), diff_id: Some(Digest::of(tar)) }
}

#[test]
fn every_compression_gives_the_same_layer_and_keeps_its_own_blob() {
    let data = noise(3 << 20);
    let tar = archive(&data);
    let skippable =
        [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2][..], &zstd::encode_all(&tar[..], 1).unwrap()]
            .concat();
    let (first, second) = tar.split_at(1000);
    let members = [gzip(first), gzip(second)].concat();
    for (blob, compression, piece) in [
        (tar.clone(), Compression::None, 70_000),
        (gzip(&tar), Compression::Gzip, 1 << 20),
        (members, Compression::Gzip, 3),
        (zstd::encode_all(&tar[..], 1).unwrap(), Compression::Zstd, 5000),
        (skippable, Compression::Zstd, 9999),
    ] {
        let (result, folder) = run(&blob, piece, true, expected(&blob, &tar));
        let unpacked = result.unwrap();
        assert_eq!((unpacked.compression, unpacked.content), (compression, data.len() as u64));
        assert_eq!((&unpacked.blob, unpacked.diff_id), (&Digest::of(&blob), Digest::of(&tar)));
        assert_eq!(fs::read(folder.path().join("fs/file")).unwrap(), data);
        assert_eq!(fs::read(folder.path().join("blob")).unwrap(), blob);
    }
}

#[test]
fn damage_is_told_by_the_digest_even_if_it_breaks_the_archive() {
    let tar = archive(&noise(1 << 20));
    let blob = gzip(&tar);
    for at in [0, 1, 20, blob.len() / 2, blob.len() - 1] {
        let mut damaged = blob.clone();
        damaged[at] ^= 0xff;
        let (result, _folder) = run(&damaged, 4096, true, expected(&blob, &tar));
        assert!(matches!(result, Err(LayerError::Digest { .. })), "byte {at}: {result:?}");
    }
}

#[test]
fn lengths_are_checked() {
    let tar = archive(b"x");
    let longer = [&tar[..], b"more"].concat();
    let (result, _folder) = run(&longer, 600, true, expected(&tar, &tar));
    assert!(matches!(result, Err(LayerError::TooLong { .. })), "{result:?}");
    let (result, _folder) = run(&tar[..700], 600, true, expected(&tar, &tar));
    assert!(matches!(result, Err(LayerError::TooShort { got: 700, .. })), "{result:?}");
}

#[test]
fn a_layer_that_is_not_the_configurations_is_refused() {
    let tar = archive(b"x");
    let wrong = Expected { diff_id: Some(Digest::of(b"other")), ..expected(&tar, &tar) };
    let (result, _folder) = run(&tar, 600, true, wrong);
    assert!(matches!(result, Err(LayerError::DiffId { .. })), "{result:?}");
}

#[test]
fn a_transfer_without_an_end_is_not_a_layer() {
    let tar = archive(&noise(1 << 20));
    for bytes in [&tar[..], &tar[..9000], &[]] {
        let (result, _folder) = run(bytes, 4096, false, expected(&tar, &tar));
        assert!(matches!(result, Err(LayerError::Stopped)), "{result:?}");
    }
}

#[test]
fn well_signed_rubbish_says_what_is_wrong_with_it() {
    let tar = archive(&noise(1 << 20));
    let cut = &gzip(&tar)[..5000];
    let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2, 3];
    for (blob, word) in [
        (&xz[..], "xz"),
        (b"BZh91AY", "bzip2"),
        (cut, "gzip data is damaged"),
        (b"rubbish that is no archive".repeat(30).as_slice(), "checksum"),
    ] {
        let blob = blob.to_vec();
        let expected = Expected { diff_id: None, ..expected(&blob, &tar) };
        let error = run(&blob, 4096, true, expected).0.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn an_import_learns_what_it_is() {
    let tar = archive(b"x");
    let blob = gzip(&tar);
    let unpacked = run(&blob, 100, true, Expected::default()).0.unwrap();
    assert_eq!((unpacked.blob, unpacked.blob_size), (Digest::of(&blob), blob.len() as u64));
    assert_eq!(unpacked.diff_id, Digest::of(&tar));
}
