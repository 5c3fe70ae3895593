//! How much memory tensors take on a device, at most took, and may still take, in bytes.

use std::fs;
use std::path::Path;

use tch::Device;

use crate::ffi;

/// Begins to count the CPU's tensors, for the life of the process; more calls change nothing.
/// Counted is the memory of every storage made from here on, as it was asked for, and not what
/// libtorch's operations use inside.
pub fn count_cpu() {
    // SAFETY: it takes nothing; libtorch frees each block by the allocator that made it.
    unsafe { ffi::s1_count_cpu() }
}

/// Makes the C library keep the memory that is freed, for the life of the process. Otherwise it hands
/// every large block back, and the kernel clears its pages anew for the next tensor: a tenth of a
/// training step on a CPU, and more where memory is short. Only glibc listens.
pub fn keep_freed() {
    // SAFETY: it takes nothing and sets numbers of the allocator.
    unsafe { ffi::s1_keep_freed() }
}

/// The bytes in tensors now: on the CPU those made since [`count_cpu`], on a CUDA device those of
/// libtorch's caching allocator (compiled, never run: needs a CUDA device). 0 on other devices,
/// and on CUDA before its first tensor.
pub fn allocated(device: Device) -> usize {
    figures(device).allocated
}

/// The most that [`allocated`] has been since the start or the last [`reset_peak`].
pub fn peak(device: Device) -> usize {
    figures(device).peak
}

/// Makes [`peak`] begin anew at what is allocated now.
pub fn reset_peak(device: Device) {
    match device {
        // SAFETY: it takes nothing.
        Device::Cpu => unsafe { ffi::s1_reset_cpu_peak() },
        Device::Cuda(index) => {
            // SAFETY: any index is an error at worst: no allocator, no peak.
            let _ = ffi::check(unsafe { ffi::s1_reset_cuda_peak(index as i32) });
        }
        _ => {}
    }
}

/// The bytes that new tensors may take: of the machine's memory what the kernel calls available,
/// within the limits of this process's control groups; of a CUDA device's what is free or cached.
/// 0 when nobody says.
pub fn available(device: Device) -> usize {
    match device {
        Device::Cpu => host_available(Path::new("/")),
        other => figures(other).available,
    }
}

#[derive(Default)]
struct Figures {
    allocated: usize,
    peak: usize,
    available: usize,
}

fn figures(device: Device) -> Figures {
    let mut of = Figures::default();
    match device {
        // SAFETY: two live numbers to write to.
        Device::Cpu => unsafe { ffi::s1_cpu_memory(&mut of.allocated, &mut of.peak) },
        Device::Cuda(index) => {
            // SAFETY: three live numbers to write to.
            let error = unsafe {
                ffi::s1_cuda_memory(
                    index as i32,
                    &mut of.allocated,
                    &mut of.peak,
                    &mut of.available,
                )
            };
            if ffi::check(error).is_err() {
                return Figures::default();
            }
        }
        _ => {}
    }
    of
}

/// MemAvailable, and no more than the tightest control group (of either version) leaves.
fn host_available(root: &Path) -> usize {
    let text = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let kib = field(&text("proc/meminfo"), "MemAvailable:").unwrap_or(0);
    let mut available = kib * 1024;
    for line in text("proc/self/cgroup").lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, limit, usage, cached) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
            "memory" => (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            _ => continue,
        };
        // A limit of any group above binds too. Files and numbers may be missing: no limit.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let folder = Path::new(base).join(group);
            let text = |name: &str| text(&folder.join(name).to_string_lossy());
            let number = |name: &str| text(name).trim().parse::<usize>().ok();
            if let (Some(limit), Some(usage)) = (number(limit), number(usage)) {
                // The page cache counts as used, but makes room when asked.
                let held = usage - field(&text("memory.stat"), cached).unwrap_or(0).min(usage);
                available = available.min(limit.saturating_sub(held));
            }
        }
    }
    available
}

/// The number that follows `name` on its line.
fn field(text: &str, name: &str) -> Option<usize> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 1000 KiB available and these files.
    #[track_caller]
    fn check(name: &str, files: &[(&str, &str)], expected: usize) {
        let root = std::env::temp_dir().join(format!("c10d-{}-{name}", std::process::id()));
        let meminfo = ("proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:    1000 kB\n");
        for (file, text) in files.iter().chain([&meminfo]) {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        let found = host_available(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn the_tightest_limit_counts() {
        check("bare", &[], 1_024_000);
        let job = ("proc/self/cgroup", "0::/jobs/7\n");
        let limit = ("sys/fs/cgroup/jobs/7/memory.max", "500000\n");
        let usage = ("sys/fs/cgroup/jobs/7/memory.current", "300000\n");
        let cached = ("sys/fs/cgroup/jobs/7/memory.stat", "anon 1\ninactive_file 200000\n");
        check("limit", &[job, limit, usage], 200_000);
        check("cached", &[job, limit, usage, cached], 400_000);
        check("max", &[job, ("sys/fs/cgroup/jobs/7/memory.max", "max\n"), usage], 1_024_000);
        check("loose", &[job, ("sys/fs/cgroup/jobs/7/memory.max", "9000000"), usage], 1_024_000);
        let above = [
            ("sys/fs/cgroup/jobs/memory.max", "400000"),
            ("sys/fs/cgroup/jobs/memory.current", "350000"),
        ];
        check("above", &[job, limit, usage, above[0], above[1]], 50_000);
        let version1 = [
            ("proc/self/cgroup", "5:cpu:/a\n4:memory:/a\n0::/\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "600000"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "100000"),
            ("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 7\ntotal_inactive_file 30000\n"),
        ];
        check("version1", &version1, 530_000);
    }
}
