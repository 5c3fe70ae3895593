//! Processes that this one has started.

use std::io;
use std::process::{Child, ExitStatus};

/// Processes that this one has started, by their numbers; none outlives it.
#[derive(Debug, Default)]
pub struct Children(pub Vec<Child>);

impl Children {
    /// The numbers of those that have ended, and how.
    ///
    /// # Errors
    /// The system does not say how one is.
    pub fn ended(&mut self) -> io::Result<Vec<(usize, ExitStatus)>> {
        let mut ended = Vec::new();
        for (number, child) in self.0.iter_mut().enumerate() {
            ended.extend(child.try_wait()?.map(|status| (number, status)));
        }
        Ok(ended)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
