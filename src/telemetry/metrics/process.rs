//! The metrics of the process, with the names that the client libraries of Prometheus use.

use std::fs;

use super::Family;

/// The memory, file descriptors, processor time and start time of this process. A value that cannot
/// be read is left out.
pub fn process_families() -> Vec<Family> {
    let mut families = Vec::new();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may contain spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    // The numbers of the fields are those of proc(5); the first one here is field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let ticks = rustix::param::clock_ticks_per_second();
    #[expect(clippy::cast_precision_loss, reason = "these numbers are small")]
    let (ticks, page) = (ticks as f64, rustix::param::page_size() as f64);
    if let (Some(user), Some(system)) = (number(14), number(15)) {
        let help = "The user and system time of all threads, in seconds.";
        families.push(Family::counter("process_cpu_seconds", help, (user + system) / ticks));
    }
    if let Some(threads) = number(20) {
        families.push(Family::gauge("process_threads", "The number of threads.", threads));
    }
    if let Some((start, boot)) = number(22).zip(boot_time()) {
        let help = "The time when the process started, in seconds since 1970.";
        families.push(Family::gauge("process_start_time_seconds", help, boot + start / ticks));
    }
    if let Some(pages) = number(24) {
        let help = "The memory that the process uses, in bytes.";
        families.push(Family::gauge("process_resident_memory_bytes", help, pages * page));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let help = "The number of open file descriptors.";
        #[expect(clippy::cast_precision_loss, reason = "the number is small")]
        families.push(Family::gauge("process_open_fds", help, open.count() as f64));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        let help = "The maximum number of open file descriptors.";
        #[expect(clippy::cast_precision_loss, reason = "the number is small")]
        families.push(Family::gauge("process_max_fds", help, most as f64));
    }
    families
}

/// The time when the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_this_process() {
        let families = process_families();
        let value = |name: &str| {
            families.iter().find(|family| family.name == name).expect(name).samples[0].1
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds") >= 0.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
