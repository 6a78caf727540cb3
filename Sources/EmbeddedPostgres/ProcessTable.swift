import Foundation

/// What /proc tells of other processes. `stat` is readable even where an unprivileged container hides the rest.
package enum ProcessTable {
  package static func children(of parent: pid_t) -> [pid_t] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { pid_t($0) }.filter { status(of: $0)?.parent == parent }
  }

  /// A zombie is not running: it holds nothing any more.
  static func isRunning(_ pid: pid_t) -> Bool {
    status(of: pid).map { $0.state != "Z" } ?? false
  }

  /// Stopped by SIGSTOP, which takes effect a little after it is sent.
  static func standsStill(_ pid: pid_t) -> Bool {
    status(of: pid).map { $0.state == "T" } ?? true
  }

  /// `pid (name) state parent …`, where the name may hold spaces and brackets.
  private static func status(of pid: pid_t) -> (state: Substring, parent: pid_t)? {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
      let bracket = text.lastIndex(of: ")")
    else { return nil }
    let fields = text[text.index(after: bracket)...].split(separator: " ")
    guard fields.count > 1, let parent = pid_t(fields[1]) else { return nil }
    return (fields[0], parent)
  }
}
