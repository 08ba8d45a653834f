//! The pause image: the smallest program that holds a pod's namespaces open and dies when told.

use std::fs;

use anyhow::Result;

use super::{GENERATION, Image, PAUSE, archive, layer};
use crate::deps::cache::{Cache, short_hash};
use crate::host::run::{find_program, run};

const SOURCE: &str = r"
#include <signal.h>
#include <unistd.h>
#include <sys/wait.h>
static void down(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    signal(SIGINT, down);
    signal(SIGTERM, down);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
";

/// The image, built when the cache lacks it.
pub fn ensure(cache: &Cache) -> Result<Image> {
    let key = short_hash(&[GENERATION, SOURCE]);
    let folder = cache.entry(&format!("images/pause-{key}"), |out| {
        let root = out.join("root");
        fs::create_dir_all(&root)?;
        let source = out.join("pause.c");
        fs::write(&source, SOURCE)?;
        let compiler = if find_program("musl-gcc").is_some() { "musl-gcc" } else { "gcc" };
        let (program, source) = (root.join("pause").display().to_string(), source.display().to_string());
        run(&[compiler, "-static", "-Os", "-s", "-o", &program, &source])?;
        let layer = layer::from_folder(&root, &out.join("layer.tar"))?;
        let config = archive::Config { entrypoint: vec!["/pause".to_owned()], ..Default::default() };
        archive::write(&out.join("image.tar"), PAUSE, &config, &[layer])
    })?;
    Ok(Image { reference: PAUSE.to_owned(), archive: folder.join("image.tar") })
}
