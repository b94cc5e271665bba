//! The agent's handle on all containers of the host's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use oci_spec::runtime::LinuxResources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::archive::{self, Archive, Files};
use crate::capability;
use crate::cgroup::{CgroupMode, Cgroups, Group, Usage};
use crate::console::{self, ConsoleReader, ConsoleWriter};
use crate::error::RuntimeError;
use crate::exit::ExitStatus;
use crate::plan::{ExecRequest, ExecResult, Plan, Rootfs};
use crate::protocol::{self, Request};
use crate::request::{ContainerState, CreateRequest, Created, Namespace, Namespaces, Seccomp};
use crate::seccomp::{self, Program};
use crate::shim::{Settings, StreamSettings};
use crate::spawn::{PATIENCE, Spawner};

/// Where the runtime keeps things.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// A folder for each container below it; on a tmpfs, gone after a reboot.
    pub run_dir: PathBuf,
    /// The cgroup that all containers' groups are in, from each hierarchy's root.
    pub cgroup_parent: String,
}

/// A handle; clones share it.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    config: RuntimeConfig,
    spawner: Arc<Spawner>,
    cgroups: Cgroups,
    last_capability: u32,
    /// The default filter for each set of capabilities asked for so far.
    filters: Mutex<Vec<(u64, Program)>>,
}

impl Runtime {
    /// Takes the run folder over; containers in it are as they were.
    ///
    /// # Errors
    /// The folder can't be made, or the host has no cgroups.
    pub fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let dir = &config.run_dir;
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .map_err(RuntimeError::io("create", dir))?;
        let shared = Shared {
            spawner: Spawner::new()?,
            cgroups: Cgroups::detect(&config.cgroup_parent)?,
            last_capability: capability::last(),
            filters: Mutex::default(),
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Which cgroup hierarchies the host has.
    #[must_use]
    pub fn cgroup_mode(&self) -> CgroupMode {
        self.shared.cgroups.mode()
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.shared.config.run_dir.join(id)
    }

    /// Sets a container up to the point where only the word to start is missing. Its network
    /// namespace is there and empty.
    ///
    /// # Errors
    /// Whatever fails; nothing of the container remains then.
    pub fn create(&self, id: &str, request: CreateRequest) -> Result<Created, RuntimeError> {
        if !is_plain(id) {
            return Err(RuntimeError::Invalid(format!("{id:?} can't be a container's id")));
        }
        let dir = self.dir(id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(RuntimeError::Exists(id.to_owned()));
            }
            other => other.map_err(RuntimeError::io("create", &dir))?,
        }
        let created = self.create_in(&dir, id, request);
        if created.is_err()
            && let Err(error) = self.remove_traces(id)
        {
            tracing::warn!(container.id = id, %error, "left over from a failed create");
        }
        created
    }

    fn create_in(
        &self,
        dir: &Path,
        id: &str,
        request: CreateRequest,
    ) -> Result<Created, RuntimeError> {
        let rootfs = dir.join("rootfs");
        fs::create_dir(&rootfs).map_err(RuntimeError::io("create", &rootfs))?;
        let limits = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let group = self.shared.cgroups.create(id, limits)?;
        let settings = self.settings(dir, &group, &request)?;
        crate::init::hooks::write_bundle(dir, &request.spec).map_err(RuntimeError::Setup)?;
        let plan = self.plan(request)?;
        let path = Plan::path(dir);
        let text = serde_json::to_vec(&plan)
            .map_err(|error| RuntimeError::Invalid(format!("the container's plan: {error}")))?;
        fs::write(&path, text).map_err(RuntimeError::io("write", &path))?;
        let pid = self.shared.spawner.run(&settings)?;
        Ok(Created { pid, netns: PathBuf::from(format!("/proc/{pid}/ns/net")) })
    }

    fn settings(
        &self,
        dir: &Path,
        group: &Group,
        request: &CreateRequest,
    ) -> Result<Settings, RuntimeError> {
        let Namespaces { network, pid, ipc, uts, .. } = &request.namespaces;
        let made =
            [(network, libc::CLONE_NEWNET), (ipc, libc::CLONE_NEWIPC), (uts, libc::CLONE_NEWUTS)];
        let own = made.iter().filter(|(namespace, _)| **namespace == Namespace::Private);
        let log = &request.log;
        Ok(Settings {
            dir: dir.to_owned(),
            log: log.path.clone(),
            log_size: log.max_size,
            log_files: log.max_files,
            journal: log.journal.clone(),
            streams: StreamSettings {
                terminal: request.streams.terminal,
                stdin: request.streams.stdin,
                stdin_once: request.streams.stdin_once,
            },
            pid_namespace: match pid {
                Namespace::Private => PathBuf::new(),
                Namespace::Host => PathBuf::from("/"),
                Namespace::Of(other) => self.namespace_file(other, "pid")?,
            },
            namespaces: own.fold(libc::CLONE_NEWNS as u64, |set, (_, flag)| set | *flag as u64),
            oom_file: group.oom_file().unwrap_or_default(),
            cgroup: group.v2().unwrap_or_default(),
            tasks: group.tasks_files(),
            ids: request.namespaces.user,
        })
    }

    /// A namespace of another container's, which must run.
    fn namespace_file(&self, id: &str, kind: &str) -> Result<PathBuf, RuntimeError> {
        match self.state(id)? {
            ContainerState::Created { pid } | ContainerState::Running { pid, .. } => {
                Ok(PathBuf::from(format!("/proc/{pid}/ns/{kind}")))
            }
            ContainerState::Exited(_) | ContainerState::Dead => {
                Err(RuntimeError::State { id: id.to_owned(), state: "not running" })
            }
        }
    }

    fn plan(&self, request: CreateRequest) -> Result<Plan, RuntimeError> {
        let cgroup_v1 = match self.cgroup_mode() {
            CgroupMode::V2 => Vec::new(),
            CgroupMode::V1 | CgroupMode::Hybrid => {
                let shown = self.shared.cgroups.hierarchies().iter().filter_map(|hierarchy| {
                    let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
                    let named = !hierarchy.v2 && hierarchy.controllers.is_empty();
                    (!named).then(|| (name, hierarchy.controllers.join(",")))
                });
                shown.collect()
            }
        };
        let seccomp = match &request.seccomp {
            Seccomp::Default => Some(self.filter(request.capabilities)?),
            Seccomp::Unconfined => None,
            Seccomp::Profile(text) => Some(seccomp::program(text, request.capabilities)?),
        };
        let Namespaces { network, ipc, uts, cgroup, .. } = &request.namespaces;
        let mut join = Vec::new();
        for (namespace, kind) in [(network, "net"), (ipc, "ipc"), (uts, "uts"), (cgroup, "cgroup")]
        {
            if let Namespace::Of(other) = namespace {
                join.push(self.namespace_file(other, kind)?);
            }
        }
        Ok(Plan {
            spec: request.spec,
            rootfs: request.rootfs,
            user: request.user,
            additional_groups: request.additional_groups,
            capabilities: request.capabilities,
            last_capability: self.shared.last_capability,
            seccomp,
            cgroup_v1,
            init: request.init,
            terminal: request.streams.terminal,
            join,
            ids: request.namespaces.user,
            cgroup_namespace: *cgroup == Namespace::Private,
            apparmor: request.apparmor,
            label: request.label,
        })
    }

    fn filter(&self, capabilities: u64) -> Result<Program, RuntimeError> {
        let mut filters = self.shared.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, program)) = filters.iter().find(|(known, _)| *known == capabilities) {
            return Ok(program.clone());
        }
        let program = seccomp::default_program(capabilities)?;
        filters.push((capabilities, program.clone()));
        Ok(program)
    }

    /// Lets a container that was created run its command.
    ///
    /// # Errors
    /// [`RuntimeError::Exec`] when the command can't be executed; the container has ended then.
    pub fn start(&self, id: &str) -> Result<(), RuntimeError> {
        match self.request(id, Request::Start, &[])? {
            (protocol::OK, _) => Ok(()),
            (protocol::FAILED, message) => Err(RuntimeError::Setup(message)),
            (code, message) => Err(RuntimeError::Exec { code: code.into(), message }),
        }
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// The container is not there or has ended.
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let number = u8::try_from(signal)
            .map_err(|_| RuntimeError::Invalid(format!("{signal} is no signal")))?;
        match self.request(id, Request::Signal, &[number])? {
            (protocol::OK, _) => Ok(()),
            (_, message) => Err(RuntimeError::Setup(message)),
        }
    }

    /// Stops all its processes where they are, or lets them go on.
    ///
    /// # Errors
    /// The host can't, or the container is not there.
    pub fn pause(&self, id: &str, paused: bool) -> Result<(), RuntimeError> {
        self.check_exists(id)?;
        self.shared.cgroups.group(id).freeze(paused)
    }

    /// Whether its processes are stopped by [`Self::pause`].
    #[must_use]
    pub fn is_paused(&self, id: &str) -> bool {
        self.shared.cgroups.group(id).is_frozen()
    }

    /// The host's numbers of its processes.
    #[must_use]
    pub fn processes(&self, id: &str) -> Vec<i32> {
        self.shared.cgroups.group(id).processes().iter().map(|pid| pid.as_raw()).collect()
    }

    /// What it uses.
    #[must_use]
    pub fn usage(&self, id: &str) -> Usage {
        self.shared.cgroups.group(id).usage()
    }

    /// Changes its limits; what is not given stays.
    ///
    /// # Errors
    /// The kernel refuses one: it and what comes after it stay as they were.
    pub fn update(&self, id: &str, limits: &LinuxResources) -> Result<(), RuntimeError> {
        self.check_exists(id)?;
        self.shared.cgroups.group(id).update(limits)
    }

    /// Starts a process that packs or unpacks a container's files; it reads and writes pipes, and
    /// says on standard error what went wrong. `rootfs` is for one that does not run.
    ///
    /// # Errors
    /// The process can't be started.
    pub fn archive(
        &self,
        id: &str,
        rootfs: Rootfs,
        archive: &Archive,
    ) -> Result<tokio::process::Child, RuntimeError> {
        let files = match self.state(id) {
            Ok(ContainerState::Running { pid, .. }) => Files::Running(pid as i32),
            _ => Files::Stopped(rootfs, self.shared.config.run_dir.clone()),
        };
        let system = |what: &'static str| move |source| RuntimeError::System { what, source };
        let args = files.to_args().map_err(system("name the container's files"))?;
        tokio::process::Command::new(self.shared.spawner.binary().path())
            .arg0(archive::NAME)
            .args(args)
            .args(archive.to_args())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(system("start a process for the container's files"))
    }

    /// Attaches to its standard streams; `with_input` to bring standard input as well. Output
    /// from before is in the log.
    ///
    /// # Errors
    /// The container is not there or has ended.
    pub async fn attach(
        &self,
        id: &str,
        with_input: bool,
    ) -> Result<(ConsoleReader, ConsoleWriter), RuntimeError> {
        let this = self.clone();
        let name = id.to_owned();
        let opened =
            blocking(move || this.open_stream(&name, Request::Attach, &[u8::from(with_input)]));
        let (connection, _) = opened.await?;
        console::split(connection)
            .map_err(|source| RuntimeError::Shim { id: id.to_owned(), source })
    }

    /// Runs a further process in the container and attaches to it; returns its host's number.
    /// Detached, it runs on by itself, and the streams end at once.
    ///
    /// # Errors
    /// [`RuntimeError::Exec`] when the command can't be executed; the container does not run.
    pub async fn exec_attached(
        &self,
        id: &str,
        request: ExecRequest,
    ) -> Result<(u32, ConsoleReader, ConsoleWriter), RuntimeError> {
        let payload = serde_json::to_vec(&request)
            .map_err(|error| RuntimeError::Invalid(format!("exec request: {error}")))?;
        let this = self.clone();
        let name = id.to_owned();
        let opened = blocking(move || this.open_stream(&name, Request::Exec, &payload));
        let (connection, pid) = opened.await?;
        let (reader, writer) = console::split(connection)
            .map_err(|source| RuntimeError::Shim { id: id.to_owned(), source })?;
        Ok((pid.parse().unwrap_or(0), reader, writer))
    }

    /// A connection that carries a stream after its answer.
    fn open_stream(
        &self,
        id: &str,
        request: Request,
        payload: &[u8],
    ) -> Result<(UnixStream, String), RuntimeError> {
        self.check_exists(id)?;
        let ask = || {
            let mut stream = protocol::connect(&self.dir(id))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            io::Write::write_all(&mut stream, &protocol::frame(request.byte(), payload))?;
            let answer = protocol::read_frame(&mut stream)?;
            Ok((stream, answer))
        };
        let (stream, (kind, answer)) =
            ask().map_err(|source| RuntimeError::Shim { id: id.to_owned(), source })?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        match kind {
            protocol::OK => Ok((stream, text)),
            protocol::FAILED => Err(RuntimeError::Setup(text)),
            code => Err(RuntimeError::Exec { code: code.into(), message: text }),
        }
    }

    /// Kills everything in the container: its first process takes the whole pid namespace along,
    /// and what is in its cgroup from elsewhere is killed there.
    ///
    /// # Errors
    /// A process that can't be killed.
    pub fn kill_all(&self, id: &str) -> Result<(), RuntimeError> {
        match self.signal(id, libc::SIGKILL) {
            Ok(()) | Err(RuntimeError::Shim { .. } | RuntimeError::Setup(_)) => {}
            Err(error) => return Err(error),
        }
        let dir = self.dir(id);
        let group = self.shared.cgroups.group(id);
        let killed = group.kill().map_err(RuntimeError::io("kill", &dir));
        // What is frozen dies when it thaws.
        if group.is_frozen() {
            group.freeze(false)?;
        }
        killed
    }

    /// What the container does now.
    ///
    /// # Errors
    /// There is no such container.
    pub fn state(&self, id: &str) -> Result<ContainerState, RuntimeError> {
        match self.request(id, Request::State, &[]) {
            Ok((protocol::OK, text)) => {
                let mut fields = text.split(' ').map(|field| field.parse::<u64>().unwrap_or(0));
                let pid = fields.next().unwrap_or(0) as u32;
                Ok(match fields.next() {
                    Some(nanos @ 1..) => ContainerState::Running {
                        pid,
                        started_at: UNIX_EPOCH + Duration::from_nanos(nanos),
                    },
                    _ => ContainerState::Created { pid },
                })
            }
            Ok((_, message)) => Err(RuntimeError::Setup(message)),
            Err(RuntimeError::Shim { .. }) => Ok(self.ended(id)),
            Err(error) => Err(error),
        }
    }

    fn ended(&self, id: &str) -> ContainerState {
        let record = fs::read_to_string(ExitStatus::path(&self.dir(id))).ok();
        match record.and_then(|text| ExitStatus::decode(&text)) {
            Some(exit) => ContainerState::Exited(exit),
            None => ContainerState::Dead,
        }
    }

    /// Waits until the container has ended; none when there is no record of how.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn wait(&self, id: &str) -> Result<Option<ExitStatus>, RuntimeError> {
        let waited = async {
            // Only the connect is blocking, and it is to a local socket.
            let stream = protocol::connect(&self.dir(id))?;
            stream.set_nonblocking(true)?;
            let mut stream = tokio::net::UnixStream::from_std(stream)?;
            stream.write_all(&protocol::frame(Request::Wait.byte(), &[])).await?;
            let mut head = [0; 5];
            stream.read_exact(&mut head).await?;
            let mut record = vec![0; protocol::payload_length(head)?];
            stream.read_exact(&mut record).await?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&record).into_owned())
        };
        if let Ok(record) = waited.await
            && let Some(exit) = ExitStatus::decode(&record)
        {
            return Ok(Some(exit));
        }
        self.check_exists(id)?;
        match self.ended(id) {
            ContainerState::Exited(exit) => Ok(Some(exit)),
            _ => Ok(None),
        }
    }

    /// Runs a further process in the container, with the container's own rights, and waits for it.
    ///
    /// # Errors
    /// The container does not run, or the process can't be made.
    pub fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecResult, RuntimeError> {
        let payload = serde_json::to_vec(request)
            .map_err(|error| RuntimeError::Invalid(format!("exec request: {error}")))?;
        match self.request(id, Request::Exec, &payload)? {
            (protocol::OK, text) => serde_json::from_str(&text)
                .map_err(|error| RuntimeError::Setup(format!("the exec's answer: {error}"))),
            (_, message) => Err(RuntimeError::Setup(message)),
        }
    }

    pub(crate) fn request(
        &self,
        id: &str,
        request: Request,
        payload: &[u8],
    ) -> Result<(u8, String), RuntimeError> {
        self.check_exists(id)?;
        let ask = || {
            let mut stream = protocol::connect(&self.dir(id))?;
            if request != Request::Exec {
                stream.set_read_timeout(Some(PATIENCE))?;
            }
            io::Write::write_all(&mut stream, &protocol::frame(request.byte(), payload))?;
            protocol::read_frame(&mut stream)
        };
        let (kind, payload) =
            ask().map_err(|source| RuntimeError::Shim { id: id.to_owned(), source })?;
        Ok((kind, String::from_utf8_lossy(&payload).into_owned()))
    }

    fn check_exists(&self, id: &str) -> Result<(), RuntimeError> {
        if is_plain(id) && self.dir(id).is_dir() {
            return Ok(());
        }
        Err(RuntimeError::Missing(id.to_owned()))
    }

    /// Ends the container if it runs, and removes all that is left of it but its log. Fine when
    /// there is nothing.
    ///
    /// # Errors
    /// What can't be removed.
    pub fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        match self.check_exists(id) {
            // Of one that a reboot or a crash took away, a cgroup may be left.
            Err(RuntimeError::Missing(_)) if is_plain(id) => {
                return self.shared.cgroups.group(id).delete();
            }
            other => other?,
        }
        self.kill_all(id)?;
        self.wait_for_shim(id);
        self.remove_traces(id)
    }

    /// The shim ends by itself once its init has. One that does not answer is dead.
    fn wait_for_shim(&self, id: &str) {
        let ended = || {
            let mut stream = protocol::connect(&self.dir(id))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            io::Write::write_all(&mut stream, &protocol::frame(Request::Wait.byte(), &[]))?;
            protocol::read_frame(&mut stream).map(drop)
        };
        // Refused or cut off: it has ended, which is what is waited for.
        let _: io::Result<()> = ended();
    }

    fn remove_traces(&self, id: &str) -> Result<(), RuntimeError> {
        let dir = self.dir(id);
        let group = self.shared.cgroups.group(id).delete();
        let removed = match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(RuntimeError::io("remove", &dir)),
        };
        group.and(removed)
    }

    /// The containers there are, in whatever state, and those of which only a cgroup is left.
    ///
    /// # Errors
    /// The run folder can't be read.
    pub fn list(&self) -> Result<Vec<String>, RuntimeError> {
        let dir = &self.shared.config.run_dir;
        let read = fs::read_dir(dir).map_err(RuntimeError::io("read", dir))?;
        let names = read.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.chain(self.shared.cgroups.names()).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Takes away what the runtime made for all containers, when none is left.
    pub fn close(&self) {
        self.shared.cgroups.remove_parent();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RuntimeError::Setup(format!("the work ended early: {error}"))))
}

/// One name of a folder, and no way out of the one it is in.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && !id.contains(['/', '\0']) && !id.starts_with('.')
}
