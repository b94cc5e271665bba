//! The example's program: `hello web` shows a page, `hello counter` counts for it, `hello check
//! URL` is a health check; `hello datagrams PORT` and `hello datagram ADDRESS:PORT FROM` are for looking
//! at UDP. The standard library alone, so that the image holds one static file.

#![allow(clippy::print_stdout, clippy::print_stderr)] // its log is what it prints

mod counter;
mod datagram;
mod http;
mod web;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The first process of a container has no default for SIGTERM: without this it would be
    // killed after the grace time.
    match signal_hook::iterator::Signals::new([15, 2]) {
        Ok(mut signals) => {
            std::thread::spawn(move || {
                signals.forever().next();
                http::finish();
                std::process::exit(0);
            });
        }
        Err(error) => eprintln!("hello: can't take signals: {error}"),
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["web"] => web::serve(),
        ["counter"] => counter::serve(),
        ["check", url] => http::get(url).map(drop),
        ["datagrams", port] => datagram::serve(port),
        ["datagram", address, from] => datagram::ask(address, from),
        _ => {
            eprintln!(
                "usage: hello web | hello counter | hello check URL | hello datagrams PORT | \
                 hello datagram ADDRESS:PORT FROM"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}
