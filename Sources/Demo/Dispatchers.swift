import EmbeddedPostgres
import Foundation
import Rig

/// The demo's two dispatchers: processes of this very executable, as an operator would start them.
struct Dispatchers: Sendable {
  struct Process: Sendable {
    let name: String
    let child: ChildProcess
    let log: URL

    /// Throws if it is not.
    func requireRunning() throws {
      guard let status = child.exitStatus() else { return }
      let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
      let tail = text.split(separator: "\n").suffix(3).joined(separator: "\n")
      throw DemoError("the \(name) dispatcher ended by itself (\(status)):\n\(tail)")
    }
  }

  /// The one to be killed, and the one that takes over.
  let first: Process
  let second: Process
  private let keeper: ChildKeeper

  static let leaseSeconds = 3

  init(database: String, logs: URL, keeper: ChildKeeper) throws {
    let program = try Executable.path()
    func start(_ name: String) throws -> Process {
      let log = logs.appendingPathComponent("dispatcher-\(name).log")
      let child = try keeper.start(
        [
          program, "dispatch", "--name", name, "--database-url", database, "--allow-http", "--allow-network",
          "127.0.0.0/8", "--lease", "\(Self.leaseSeconds)", "--grace", "5", "--reconcile-every", "0",
        ],
        log: log
      )
      return Process(name: name, child: child, log: log)
    }
    self.keeper = keeper
    first = try start("first")
    second = try start("second")
  }

  func killFirst() async throws {
    try first.requireRunning()
    first.child.signal(SIGKILL)
    let status = try await first.child.waitForExit(within: .seconds(10))
    guard status == .signalled(SIGKILL) else {
      throw DemoError("the first dispatcher could not be killed (\(status.map { "\($0)" } ?? "still running"))")
    }
    keeper.forget(first.child)
  }

  /// Ends the second one in order, and tells whether it did.
  func stopSecond() async throws {
    second.child.signal(SIGTERM)
    let status = try await second.child.waitForExit(within: .seconds(20))
    guard status == .exited(0) else {
      throw DemoError("the second dispatcher did not stop in order (\(status.map { "\($0)" } ?? "still running"))")
    }
    keeper.forget(second.child)
  }

  /// Whatever has happened, they are gone afterwards.
  func kill() async {
    for process in [first, second] { process.child.signal(SIGKILL) }
    // Unstructured, because this must happen after a cancellation too.
    await Task {
      for process in [first, second] {
        _ = try? await process.child.waitForExit(within: .seconds(10))
        keeper.forget(process.child)
      }
    }.value
  }
}
