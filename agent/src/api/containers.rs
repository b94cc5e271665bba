//! The node's containers: single ones, and those of the cluster's tasks as far as looking and
//! reaching into them goes.

mod files;
mod show;
mod stats;
mod streams;
mod top;

use std::pin::Pin;
use std::sync::Arc;

use shoal_proto::time::std_duration;
use shoal_proto::v1;
use shoal_proto::v1::containers_server::Containers;
use shoal_proto::v1::{
    ContainerRequest, ContainerResponse, ListContainersResponse, Task, WaitContainerResponse,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::container::signal;
use crate::node::Node;
use crate::single::{Single, SingleError, Singles};
use crate::task;

pub(crate) struct ContainersApi {
    singles: Singles,
}

/// What a name means.
enum Target {
    Single(Arc<Single>),
    Task(Box<Task>),
}

impl Target {
    fn id(&self) -> &str {
        match self {
            Self::Single(single) => &single.id,
            Self::Task(task) => &task.id,
        }
    }
}

impl From<SingleError> for Status {
    fn from(error: SingleError) -> Self {
        let message = error.to_string();
        match error {
            SingleError::Missing(_) => Self::not_found(message),
            SingleError::Invalid(_) => Self::invalid_argument(message),
            SingleError::Conflict(_) => Self::failed_precondition(message),
            SingleError::Failed(_) => Self::unknown(message),
        }
    }
}

fn runtime_error(error: &shoal_runtime::RuntimeError) -> Status {
    use shoal_runtime::RuntimeError;
    match error {
        RuntimeError::Missing(_) | RuntimeError::Shim { .. } => {
            Status::failed_precondition("the container is not running")
        }
        RuntimeError::Invalid(_) => Status::invalid_argument(error.to_string()),
        _ => Status::unknown(error.to_string()),
    }
}

impl ContainersApi {
    pub(crate) fn new(singles: Singles) -> Self {
        Self { singles }
    }

    fn node(&self) -> &Node {
        self.singles.node()
    }

    fn target(&self, name: &str) -> Result<Target, Status> {
        match self.singles.find(name) {
            Ok(single) => Ok(Target::Single(single)),
            Err(SingleError::Missing(_)) => match task::find(self.node(), name) {
                Some(task) => Ok(Target::Task(Box::new(task))),
                None => Err(SingleError::Missing(name.to_owned()).into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// One that is the node's own to start and stop.
    fn single(&self, name: &str) -> Result<Arc<Single>, Status> {
        match self.target(name)? {
            Target::Single(single) => Ok(single),
            Target::Task(task) => Err(Status::failed_precondition(format!(
                "container {name} is of service {}, which the cluster starts and stops; \
                 use ctl service",
                task.service_name
            ))),
        }
    }
}

fn done(id: &str) -> Result<Response<ContainerResponse>, Status> {
    Ok(Response::new(ContainerResponse { id: id.to_owned(), warnings: Vec::new() }))
}

type Reply<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Containers for ContainersApi {
    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Reply<v1::CreateContainerResponse> {
        let single = self.singles.create(request.into_inner()).await?;
        Ok(Response::new(v1::CreateContainerResponse {
            id: single.id.clone(),
            name: single.name(),
            warnings: Vec::new(),
        }))
    }

    async fn start_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let single = self.single(&request.into_inner().container)?;
        match self.singles.start(&single, None).await {
            Ok(_) => done(&single.id),
            Err(failure) => Err(Status::unknown(failure.message)),
        }
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        let grace = request.grace.as_ref().map(std_duration);
        self.singles.stop(&single, grace, signal_of(&request.signal)?).await?;
        done(&single.id)
    }

    async fn restart_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        let grace = request.grace.as_ref().map(std_duration);
        self.singles.stop(&single, grace, signal_of(&request.signal)?).await?;
        match self.singles.start(&single, None).await {
            Ok(_) => done(&single.id),
            Err(failure) => Err(Status::unknown(failure.message)),
        }
    }

    async fn kill_container(
        &self,
        request: Request<v1::KillContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        let number = signal_of(&request.signal)?.unwrap_or(nix::sys::signal::SIGKILL as i32);
        self.singles.kill(&single, number).await?;
        done(&single.id)
    }

    async fn pause_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let single = self.single(&request.into_inner().container)?;
        self.singles.pause(&single, true).await?;
        done(&single.id)
    }

    async fn unpause_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let single = self.single(&request.into_inner().container)?;
        self.singles.pause(&single, false).await?;
        done(&single.id)
    }

    async fn rename_container(
        &self,
        request: Request<v1::RenameContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        self.singles.rename(&single, &request.name).await?;
        done(&single.id)
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        self.singles.remove(&single, request.force, request.volumes).await?;
        done(&single.id)
    }

    async fn update_container(
        &self,
        request: Request<v1::UpdateContainerRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        self.singles.update(&single, request).await?;
        done(&single.id)
    }

    async fn connect_network(
        &self,
        request: Request<v1::ConnectNetworkRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        self.singles.connect(&single, request.network.unwrap_or_default()).await?;
        done(&single.id)
    }

    async fn disconnect_network(
        &self,
        request: Request<v1::DisconnectNetworkRequest>,
    ) -> Reply<ContainerResponse> {
        let request = request.into_inner();
        let single = self.single(&request.container)?;
        self.singles.disconnect(&single, &request.network).await?;
        done(&single.id)
    }

    async fn wait_container(
        &self,
        request: Request<v1::WaitContainerRequest>,
    ) -> Reply<WaitContainerResponse> {
        let request = request.into_inner();
        let single = match self.target(&request.container)? {
            Target::Single(single) => single,
            Target::Task(task) => {
                let exit = self.node().runtime.wait(&task.id).await;
                let exit = exit.map_err(|error| runtime_error(&error))?;
                let exit_code = exit.map_or(255, |exit| exit.code);
                return Ok(Response::new(WaitContainerResponse { exit_code }));
            }
        };
        if request.next {
            let before = single.state().finished_at;
            single.until(|state| state.finished_at.is_some() && state.finished_at != before).await;
        } else {
            single.until(|_| !single.is_up() || self.singles.is_gone(&single)).await;
        }
        Ok(Response::new(WaitContainerResponse { exit_code: single.state().exit_code }))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Reply<ListContainersResponse> {
        let containers = show::list(&self.singles, request.into_inner().all);
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn inspect_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<v1::InspectContainerResponse> {
        let target = self.target(&request.into_inner().container)?;
        Ok(Response::new(match target {
            Target::Single(single) => show::inspect_single(&self.singles, &single),
            Target::Task(task) => show::inspect_task(self.node(), &task),
        }))
    }

    type ContainerLogsStream = Events<v1::LogEntry>;

    async fn container_logs(
        &self,
        request: Request<v1::ContainerLogsRequest>,
    ) -> Reply<Self::ContainerLogsStream> {
        let request = request.into_inner();
        let target = self.target(&request.container)?;
        streams::logs(&self.singles, target, request).map(Response::new)
    }

    type AttachContainerStream = Events<v1::AttachResponse>;

    async fn attach_container(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Reply<Self::AttachContainerStream> {
        streams::attach(self, request.into_inner()).await.map(Response::new)
    }

    type ExecContainerStream = Events<v1::AttachResponse>;

    async fn exec_container(
        &self,
        request: Request<Streaming<v1::ExecStreamRequest>>,
    ) -> Reply<Self::ExecContainerStream> {
        streams::exec(self, request.into_inner()).await.map(Response::new)
    }

    async fn top_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<v1::TopContainerResponse> {
        let target = self.target(&request.into_inner().container)?;
        let pids = self.node().runtime.processes(target.id());
        if pids.is_empty() {
            return Err(Status::failed_precondition("the container is not running"));
        }
        Ok(Response::new(v1::TopContainerResponse { processes: top::processes(&pids) }))
    }

    type ContainerStatsStream = Events<v1::ContainerStatsResponse>;

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Reply<Self::ContainerStatsStream> {
        stats::stream(self, request.into_inner()).map(Response::new)
    }

    async fn diff_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<v1::DiffContainerResponse> {
        let target = self.target(&request.into_inner().container)?;
        let changes = files::diff(self.node(), target.id()).await?;
        Ok(Response::new(v1::DiffContainerResponse { changes }))
    }

    type ExportContainerStream = Events<v1::TarChunk>;

    async fn export_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<Self::ExportContainerStream> {
        let target = self.target(&request.into_inner().container)?;
        files::export(self.node(), target.id()).await.map(Response::new)
    }

    type CopyFromContainerStream = Events<v1::CopyFromContainerResponse>;

    async fn copy_from_container(
        &self,
        request: Request<v1::CopyFromContainerRequest>,
    ) -> Reply<Self::CopyFromContainerStream> {
        let request = request.into_inner();
        let target = self.target(&request.container)?;
        files::copy_from(self.node(), target.id(), &request).await.map(Response::new)
    }

    async fn copy_to_container(
        &self,
        request: Request<Streaming<v1::CopyToContainerRequest>>,
    ) -> Reply<ContainerResponse> {
        let id = files::copy_to(self, request.into_inner()).await?;
        done(&id)
    }
}

fn signal_of(text: &str) -> Result<Option<i32>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = signal::parse(text);
    number.map(Some).ok_or_else(|| Status::invalid_argument(format!("{text:?} is no signal")))
}
