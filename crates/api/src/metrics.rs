//! What the daemon has counted and measured, as a page in Prometheus's text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! ```text
//! # HELP sampan_start_seconds From a request for a container until its program was executed.
//! # TYPE sampan_start_seconds histogram
//! sampan_start_seconds_bucket{le="0.005"} 17
//! ```
//!
//! Everything is counted since this daemon began, so a rate over its restart is taken as any other: counters may begin
//! anew. There is no label whose values callers choose: the page has the same length whatever they do.

use std::fmt::{Display, Write as _};

use sampan_container::{BOUNDS_US, Histogram};
use sampan_model::ContainerStatus;

use crate::{ApiError, Core};

/// The page's media type.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Core {
    /// The page as it is now.
    pub(crate) async fn metrics(&self) -> Result<String, ApiError> {
        let counts = self.containers.counts();
        let daemon = (self.daemon)();
        let running =
            self.containers.list().iter().filter(|record| record.state.status == ContainerStatus::Running).count();

        let mut page = Page::default();
        page.head("sampan_info", "gauge", "Which Sampan this is.");
        page.sample("sampan_info", &[("version", &daemon.version)], 1);
        page.head("sampan_start_timestamp_seconds", "gauge", "When this daemon began, in seconds since 1970.");
        page.sample("sampan_start_timestamp_seconds", &[], daemon.started_at.as_second());
        page.head("sampan_containers_running", "gauge", "Containers that run.");
        page.sample("sampan_containers_running", &[], running);
        page.head("sampan_pool_servers", "gauge", "Servers that wait ready for containers.");
        page.sample("sampan_pool_servers", &[], self.containers.parked().len());
        page.head("sampan_containers_started_total", "counter", "Containers that were started.");
        page.sample("sampan_containers_started_total", &[], counts.starts.count());
        page.head("sampan_containers_failed_total", "counter", "Containers that could not be started.");
        page.sample("sampan_containers_failed_total", &[], counts.failed);
        page.head(
            "sampan_start_seconds",
            "histogram",
            "From a request for a container until its program was executed.",
        );
        page.histogram("sampan_start_seconds", &[], &counts.starts);
        page.head("sampan_start_step_seconds", "histogram", "The same, step by step.");
        for (step, histogram) in &counts.steps {
            page.histogram("sampan_start_step_seconds", &[("step", step)], histogram);
        }
        page.head(
            "sampan_exec_seconds",
            "histogram",
            "From a request for a process in a container until it was executed.",
        );
        page.histogram("sampan_exec_seconds", &[], &counts.execs);
        page.head(
            "sampan_process_memory_bytes",
            "gauge",
            "Memory of Sampan's own processes, shared parts divided (PSS).",
        );
        // the kernel walks a process's page tables for it
        let memory = tokio::task::spawn_blocking(move || {
            let of = |process: sampan_model::view::ProcessView| Some((process.role, proportional_memory(process.pid)?));
            daemon.processes.into_iter().filter_map(of).collect::<Vec<_>>()
        });
        for (role, bytes) in memory.await.map_err(|_| ApiError::stopping())? {
            page.sample("sampan_process_memory_bytes", &[("role", &role)], bytes);
        }
        Ok(page.0)
    }
}

/// A process's memory, what it shares divided among those it shares it with. `None`: it has just ended.
fn proportional_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{before}{label}=\"{value}\"");
            before = ',';
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bounds = BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string()).chain(["+Inf".to_owned()]);
        let mut so_far = 0;
        for (bound, count) in bounds.zip(histogram.counts) {
            so_far += count;
            let labels = [labels, &[("le", &bound)]].concat();
            self.sample(&format!("{name}_bucket"), &labels, so_far);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), labels, so_far);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples() {
        let mut page = Page::default();
        page.head("a", "gauge", "What.");
        page.sample("a", &[], 7);
        page.sample("a", &[("x", "1\"\\\n"), ("y", "2")], 0.5);
        assert_eq!(page.0, "# HELP a What.\n# TYPE a gauge\na 7\na{x=\"1\\\"\\\\\\n\",y=\"2\"} 0.5\n");
    }

    #[test]
    fn histograms_are_cumulative() {
        let mut histogram = Histogram { sum_us: 2_500, ..Histogram::default() };
        (histogram.counts[0], histogram.counts[5], histogram.counts[BOUNDS_US.len()]) = (2, 3, 1);
        let mut page = Page::default();
        page.histogram("a", &[("step", "go")], &histogram);
        let lines: Vec<&str> = page.0.lines().collect();
        assert_eq!(lines[0], r#"a_bucket{step="go",le="0.00005"} 2"#);
        assert_eq!(lines[5], r#"a_bucket{step="go",le="0.0015"} 5"#);
        assert_eq!(lines[BOUNDS_US.len()], r#"a_bucket{step="go",le="+Inf"} 6"#);
        assert_eq!(lines[BOUNDS_US.len() + 1..], [r#"a_sum{step="go"} 0.0025"#, r#"a_count{step="go"} 6"#]);
    }
}
