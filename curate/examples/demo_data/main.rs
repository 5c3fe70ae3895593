//! Makes the demo's bundled data: `cargo run -p curate --example demo_data -- data/demo`.

mod files;
mod pool;
mod tokenizer;
mod world;

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1);
    let folder = folder.ok_or_else(|| anyhow::anyhow!("usage: demo_data FOLDER"))?;
    files::write(Path::new(&folder))
}
