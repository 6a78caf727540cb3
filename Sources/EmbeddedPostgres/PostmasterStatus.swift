import Foundation

/// The server's own word on whether it is up, as pg_ctl reads it: line 1 of postmaster.pid is the process id, line 8
/// the status (PostgreSQL 10 and later).
struct PostmasterStatus: Sendable {
  let dataDirectory: URL

  /// The id is compared because a killed server leaves its file behind, and that one says ready too.
  func isReady(pid: pid_t) -> Bool {
    guard let text = try? String(contentsOf: dataDirectory.appendingPathComponent("postmaster.pid"), encoding: .utf8)
    else { return false }
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    return lines.count > 7 && pid_t(lines[0]) == pid && lines[7].hasPrefix("ready")
  }
}

/// The part of the server's log that one start has written.
struct Log: Sendable {
  private let file: URL
  private let start: UInt64

  /// Remembers where the log ends now.
  init(_ file: URL) throws {
    self.file = file
    start = (try? FileHandle(forReadingFrom: file).seekToEnd()) ?? 0  // No log yet: from its beginning.
  }

  /// The last lines since then, at most 4 KiB.
  func tail() -> String {
    guard let handle = try? FileHandle(forReadingFrom: file), let end = try? handle.seekToEnd() else { return "" }
    do {
      try handle.seek(toOffset: max(start, end > 4096 ? end - 4096 : 0))
      return String(decoding: try handle.readToEnd() ?? Data(), as: UTF8.self)
    } catch {
      return "(the log cannot be read: \(error))"
    }
  }
}
