//! The process: settings from the environment, the database, the listener, and an orderly end.
//!
//! `PORT` (8080): where it listens. `DATA_DIR` (`/data`): where its database is.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use courses::access_log::{self, event, failure};
use courses::database::Database;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// How long requests under way may take after a signal to end: less than the ten seconds after which it is killed.
const GRACE: Duration = Duration::from_secs(8);
/// How long the database may take to close after that. What was answered is on the disk in any case.
const CLOSING: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            failure("start", &*error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::var_os("DATA_DIR").unwrap_or_else(|| "/data".into()));
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse::<u16>().map_err(|error| format!("PORT is {text:?}: {error}"))?,
        Err(_) => 8080,
    };
    // before anything is begun: a signal that comes early is not to be missed
    let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (database, keeper) = Database::open(&directory)?;
    let listener =
        TcpListener::bind(("0.0.0.0", port)).await.map_err(|error| format!("listen on port {port}: {error}"))?;
    event(
        "listening",
        json!({ "address": listener.local_addr()?.to_string(), "data": directory.display().to_string() }),
    );

    let (ending, ended) = oneshot::channel();
    let app = courses::app(database).layer(axum::middleware::from_fn(access_log::requests));
    let served = axum::serve(listener, app).with_graceful_shutdown(async move {
        let name = either(terminate, interrupt).await;
        event("ending", json!({ "signal": name }));
        ending.send(()).ok();
    });
    let late = async {
        match ended.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            // it ended by itself
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = served => served?,
        () = late => event("cut off", json!({ "after_s": GRACE.as_secs() })),
    }
    // the router is gone, and with it all ways to the database: its thread finishes and closes it
    tokio::time::timeout(CLOSING, tokio::task::spawn_blocking(move || keeper.join())).await.ok();
    event("ended", json!({}));
    Ok(())
}

async fn either(mut terminate: Signal, mut interrupt: Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
