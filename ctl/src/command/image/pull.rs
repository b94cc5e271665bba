//! `ctl image pull`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shoal_proto::v1::pull_image_progress::Progress;
use shoal_proto::v1::{LayerProgress, PullImageRequest};
use tokio_stream::StreamExt;

use crate::client::Client;
use crate::output;

/// Fetch an image from its registry to this node.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl image pull localhost:5000/app:1.2\n  ctl image pull localhost:5000/app@sha256:…"
)]
pub(crate) struct Pull {
    /// The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]
    image: String,
    /// Print nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(client: &mut Client, args: Pull) -> anyhow::Result<ExitCode> {
    let request = PullImageRequest { reference: args.image.clone(), platform: None };
    let mut steps = client.images.pull_image(request).await?.into_inner();
    let live = output::on_terminal() && !args.quiet;
    let all = MultiProgress::new();
    let mut bars: BTreeMap<String, ProgressBar> = BTreeMap::new();
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    while let Some(step) = steps.next().await.transpose()? {
        match step.progress {
            Some(Progress::ResolvedDigest(digest)) if !args.quiet => {
                output::note(format!("Digest: {digest}"));
            }
            Some(Progress::Layer(layer)) if live => show(&all, &mut bars, &layer),
            Some(Progress::Layer(layer)) if !args.quiet => {
                let old = states.insert(layer.digest.clone(), layer.state.clone());
                if old.as_ref() != Some(&layer.state) {
                    output::note(format!("{}: {}", short(&layer.digest), layer.state));
                }
            }
            Some(Progress::Done(image)) => {
                output::line(if args.quiet { image.id } else { args.image })?;
                return Ok(ExitCode::SUCCESS);
            }
            _ => {}
        }
    }
    bail!("the agent ended the pull without a word")
}

fn short(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect()
}

fn show(all: &MultiProgress, bars: &mut BTreeMap<String, ProgressBar>, layer: &LayerProgress) {
    let bar = bars.entry(layer.digest.clone()).or_insert_with(|| {
        let bar = all.add(ProgressBar::new(layer.total_bytes));
        let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(short(&layer.digest));
        bar
    });
    bar.set_length(layer.total_bytes);
    bar.set_position(layer.current_bytes);
    bar.set_message(layer.state.clone());
    if matches!(layer.state.as_str(), "done" | "exists") {
        bar.abandon();
    }
}
