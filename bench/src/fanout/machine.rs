//! The machine, as its kernel tells of it: processor time and memory of processes, what others use,
//! packets, and who runs where.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, the same on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// The processors of servers, and those of the load.
#[derive(Debug, Clone)]
pub struct Halves {
    pub servers: Vec<usize>,
    pub load: Vec<usize>,
}

/// The processors this process may use.
pub fn all() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("asking which processors may be used")?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

impl Halves {
    /// Half of the processors this process may use for each; at least two are needed.
    pub fn of_this_machine() -> Result<Self> {
        let all = all()?;
        if all.len() < 2 {
            bail!("servers and load need a processor each, and there is one");
        }
        let (servers, load) = all.split_at(all.len() / 2);
        Ok(Self {
            servers: servers.to_vec(),
            load: load.to_vec(),
        })
    }
}

/// Does something on certain processors, which a process that is started there keeps.
pub fn on<R>(cpus: &[usize], work: impl FnOnce() -> Result<R>) -> Result<R> {
    let before = sched_getaffinity(None).context("asking which processors may be used")?;
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).context("choosing processors")?;
    let done = work();
    sched_setaffinity(None, &before).context("choosing processors")?;
    done
}

/// Seconds of processor time that processes have used, user and system.
pub fn cpu_s(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        ticks += process_ticks(&read(&format!("/proc/{pid}/stat"))?)
            .with_context(|| format!("reading the processor time of process {pid}"))?;
    }
    Ok(ticks as f64 / TICKS_PER_S)
}

fn process_ticks(stat: &str) -> Option<u64> {
    // The name in brackets may hold spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Resident bytes of processes.
pub fn rss(pids: &[u32]) -> Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let status = read(&format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
            .with_context(|| format!("reading the memory of process {pid}"))?;
        bytes += kib * 1024;
    }
    Ok(bytes)
}

/// What the whole machine has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Seconds of user and system time, and time taken by a hypervisor.
    pub busy_s: f64,
    /// UDP datagrams and TCP segments sent, loopback included.
    pub packets: u64,
}

/// Reads the machine's counters.
pub fn totals() -> Result<Totals> {
    let busy = busy_ticks(&read("/proc/stat")?).context("reading /proc/stat")?;
    let packets = counter(&read("/proc/net/snmp")?, "Udp:", "OutDatagrams")
        .zip(counter(&read("/proc/net/snmp")?, "Tcp:", "OutSegs"))
        .map(|(udp, tcp)| udp + tcp)
        .context("reading /proc/net/snmp")?;
    let six = read("/proc/net/snmp6").unwrap_or_default();
    let six = six
        .lines()
        .find_map(|line| line.strip_prefix("Udp6OutDatagrams")?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Ok(Totals {
        busy_s: busy as f64 / TICKS_PER_S,
        packets: packets + six,
    })
}

fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    Some(fields.first()? + fields.get(1)? + fields.get(2)? + fields.get(7)?)
}

/// A counter of a table whose lines come in pairs: names, then values.
fn counter(table: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix(protocol));
    let place = lines.next()?.split_whitespace().position(|field| field == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_process_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 130 0 0 20 0 1 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(380));
        assert!(cpu_s(&[std::process::id()]).unwrap() >= 0.0);
        assert!(rss(&[std::process::id()]).unwrap() > 0);
    }

    #[test]
    fn counters_are_found_by_name() {
        let table =
            "Udp: InDatagrams OutDatagrams\nUdp: 5 7\nUdpLite: InDatagrams OutDatagrams\nUdpLite: 1 2\n";
        assert_eq!(counter(table, "Udp:", "OutDatagrams"), Some(7));
        assert_eq!(counter(table, "Udp:", "Absent"), None);
        assert_eq!(busy_ticks("cpu  10 20 30 40 50 60 70 80 0 0\n"), Some(140));
        assert!(totals().unwrap().busy_s > 0.0);
    }

    #[test]
    fn work_is_done_where_it_is_told_and_the_thread_comes_back() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
        let there = on(&[first], || Ok(sched_getaffinity(None)?)).unwrap();
        assert_eq!(there.count(), 1);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
