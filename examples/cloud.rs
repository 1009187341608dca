//! One server's whole life: `cargo run --example cloud [DIRECTORY]`, as root.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use sampan_client::Cloud;
use sampan_client::model::{ByteSize, Cpus};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let source = std::env::args().nth(1).unwrap_or_else(|| "examples/hello-rust".to_owned());
    let cloud = Cloud::connect_or_start().await?;

    let server = cloud.server(Cpus::ONE, ByteSize::mib(256)).create().await?;
    let mut watch = server.watch().await?;
    let watching = tokio::spawn(async move {
        while let Some(Ok(seen)) = watch.next().await {
            match seen.value {
                Some(server) => println!("  {:?}: {} CPUs, {}", server.status, server.cpus, server.memory_bytes),
                None => println!("  gone"),
            }
        }
    });

    let app = server.deploy(source).quiet().await?;
    println!("{} on {} answers at {}", app.name(), server.name(), app.http().await?);

    server.resize(Cpus::from_milli(500), ByteSize::mib(512)).await?;
    server.stop(Duration::from_secs(5)).await?;
    server.start().await?;
    println!("{} answers again at {}", app.name(), app.http().await?);

    server.close().await?;
    Ok(watching.await?)
}
