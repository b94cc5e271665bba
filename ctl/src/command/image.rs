//! `ctl image`.

mod import;
mod pull;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use shoal_proto::ByteSize;
use shoal_proto::v1::{ListImagesRequest, RemoveImageRequest};

use super::Ids;
use crate::client::Client;
use crate::output::{self, Format};
use crate::when;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch an image from its registry
    Pull(pull::Pull),
    /// List the images on this node
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Make an image of a tar archive of a root file system
    Import(import::Import),
    /// Remove images from this node
    #[command(visible_alias = "remove")]
    Rm {
        /// The images, by name, digest or id
        #[arg(required = true)]
        images: Vec<String>,
        /// Also when it has several names, or containers use it
        #[arg(short, long)]
        force: bool,
    },
}

/// How images are listed.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    ids: Ids,
    /// Show the digests that registries know them by
    #[arg(long)]
    digests: bool,
    /// Don't cut ids
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Pull(args) => pull::run(client, args).await,
        Command::Import(args) => import::run(client, args).await,
        Command::Ls(args) => ls(client, &args).await,
        Command::Rm { images, force } => {
            for image in images {
                let request = RemoveImageRequest { image, force };
                let removed = client.images.remove_image(request).await?.into_inner();
                for name in removed.untagged {
                    output::line(format!("Untagged: {name}"))?;
                }
                for id in removed.deleted {
                    output::line(format!("Deleted: {id}"))?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn short_id(id: &str, whole: bool) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    if whole { id.to_owned() } else { digits.chars().take(12).collect() }
}

async fn ls(client: &mut Client, args: &Ls) -> anyhow::Result<ExitCode> {
    let images = client.images.list_images(ListImagesRequest {}).await?.into_inner().images;
    if args.ids.quiet {
        for image in &images {
            output::line(short_id(&image.id, args.no_trunc))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.ids.listing.format == Format::Json {
        output::json(&images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for image in &images {
        let none = ["<none>:<none>".to_owned()];
        let tags: &[String] = if image.tags.is_empty() { &none } else { &image.tags };
        for tag in tags {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, ""));
            let mut row = vec![name.to_owned(), tag.to_owned()];
            if args.digests {
                let own = image.digests.iter().find_map(|digest| digest.split_once('@'));
                row.push(own.map_or("<none>", |(_, digest)| digest).to_owned());
            }
            row.push(short_id(&image.id, args.no_trunc));
            row.push(when::ago(image.created.as_ref()));
            row.push(ByteSize(image.size).to_string());
            rows.push(row);
        }
    }
    let mut head = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if args.digests {
        head.insert(2, "DIGEST");
    }
    output::table(&head, &rows)?;
    Ok(ExitCode::SUCCESS)
}
