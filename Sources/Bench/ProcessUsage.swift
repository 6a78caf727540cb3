import Foundation

/// Processor time and memory of other processes, from /proc.
enum ProcessUsage {
  /// Seconds, user and system, of a process, its living descendants, and all their children that have ended and been
  /// waited for. Of a tree that reaps its children, as PostgreSQL's and nginx's are, nothing is missing.
  static func treeSeconds(of root: pid_t) -> Double {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    let all = names.compactMap { pid_t($0) }.compactMap { pid in Entry(pid).map { (pid, $0) } }
    let children = Dictionary(grouping: all, by: { $0.1.parent })
    var ticks = 0
    var next = all.filter { $0.0 == root }
    while let (pid, entry) = next.popLast() {
      ticks += entry.ticks
      next += children[pid] ?? []
    }
    return Double(ticks) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// The most memory a process has had resident so far; nil if there is no such process.
  static func peakBytes(of pid: pid_t) -> Int? { status(of: pid, "VmHWM").map { $0 * 1024 } }

  static func residentBytes(of pid: pid_t) -> Int? { status(of: pid, "VmRSS").map { $0 * 1024 } }

  /// Of this process: the publishers and the receivers.
  static func ownSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  static func threads(of pid: pid_t) -> Int? { status(of: pid, "Threads") }

  private static func status(of pid: pid_t, _ name: String) -> Int? {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8),
      let line = text.split(separator: "\n").first(where: { $0.hasPrefix("\(name):") })
    else { return nil }
    return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }
  }

  /// What all processors together have done since the machine started, in ticks.
  static func machine() -> (busy: Int, all: Int) {
    let text = (try? String(contentsOfFile: "/proc/stat", encoding: .utf8)) ?? ""
    // user nice system idle iowait irq softirq steal; what follows is contained in them.
    let ticks = text.prefix(while: { $0 != "\n" }).split(separator: " ").dropFirst().prefix(8).map { Int($0) ?? 0 }
    guard ticks.count == 8 else { return (0, 0) }
    let all = ticks.reduce(0, +)
    return (all - ticks[3] - ticks[4], all)
  }

  /// Line of /proc/PID/stat: `pid (name) state parent …`, where the name may hold spaces and brackets.
  private struct Entry {
    let parent: pid_t
    let ticks: Int

    init?(_ pid: pid_t) {
      guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
        let bracket = text.lastIndex(of: ")")
      else { return nil }
      let fields = text[text.index(after: bracket)...].split(separator: " ")
      // Fields 14 to 17 of proc(5), counted from 1: utime, stime, cutime, cstime.
      guard fields.count > 14, let parent = pid_t(fields[1]) else { return nil }
      self.parent = parent
      ticks = fields[11...14].reduce(0) { $0 + (Int($1) ?? 0) }
    }
  }
}

/// Nanoseconds of CLOCK_MONOTONIC, the same for all processes and threads of this host.
func monotonicNanoseconds() -> UInt64 { nanoseconds(CLOCK_MONOTONIC) }

/// Processor time of the calling thread.
func threadNanoseconds() -> UInt64 { nanoseconds(CLOCK_THREAD_CPUTIME_ID) }

private func nanoseconds(_ clock: clockid_t) -> UInt64 {
  var time = timespec()
  clock_gettime(clock, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
