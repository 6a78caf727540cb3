import EmbeddedPostgres
import Foundation
import Postgres

/// Starts processes that must not outlive this one, however it ends: the kernel sends them SIGTERM when the thread that
/// started them is gone. So that thread is one of our own, which lives as long as this object.
actor ChildLauncher {
  private let thread = PinnedThread(name: "bench-children")
  private let directory: URL

  nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  /// - Parameter directory: where the children's output goes.
  init(directory: URL) { self.directory = directory }

  func launch(_ arguments: [String], log: String) throws -> ChildProcess {
    try ChildProcess(
      ["setpriv", "--pdeathsig", "TERM", "--"] + arguments,
      in: directory,
      output: directory.appendingPathComponent(log)
    )
  }

  /// What a child has printed, for an error message.
  func output(_ log: String) -> String {
    let text = (try? String(contentsOf: directory.appendingPathComponent(log), encoding: .utf8)) ?? ""
    return String(text.suffix(2000)).trimmingCharacters(in: .whitespacesAndNewlines)
  }
}

package struct BenchError: Error, CustomStringConvertible {
  package var description: String
  init(_ description: String) { self.description = description }
}

/// A directory that is gone after `body`.
func withTemporaryDirectory<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
  var path = Array("/tmp/martlet-bench-XXXXXX".utf8CString)
  guard mkdtemp(&path) != nil else { throw BenchError("no directory could be made in /tmp") }
  let directory = URL(fileURLWithPath: String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  defer { try? FileManager.default.removeItem(at: directory) }
  return try await body(directory)
}
