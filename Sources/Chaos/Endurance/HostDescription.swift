import Foundation

/// What a figure was measured on.
enum HostDescription {
  static func text(postgres: String) -> String {
    let info = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let model = info.split(separator: "\n").first { $0.hasPrefix("model name") }?.split(separator: ":").last
    let cpu = model.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
    let kernel = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? "unknown"
    let cores = ProcessInfo.processInfo.activeProcessorCount
    return
      "\(cores) cores, \(cpu), Linux \(kernel.trimmingCharacters(in: .whitespacesAndNewlines)), PostgreSQL \(postgres), "
      + "`fsync` on, commits of publishers synchronous, of dispatchers asynchronous; every request's signature is verified."
  }
}
