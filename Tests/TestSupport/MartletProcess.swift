import Foundation
import Synchronization

/// The `martlet` executable of this build, as a process of its own: for tests that kill it, and for tests of what it prints.
package final class MartletProcess: Sendable {
  package struct Result: Sendable {
    package var status: Int32
    package var output: String
    package var errors: String
  }

  package let pid: Int32
  private let exit: Task<Int32, Never>

  /// Beside the test bundle, where the build puts it.
  private static var executable: URL {
    URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("martlet")
  }

  package init(_ arguments: [String], environment: [String: String] = [:], output: Any? = nil, errors: Any? = nil)
    throws
  {
    let process = Process()
    process.executableURL = Self.executable
    process.arguments = arguments
    var all = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("PG") && $0.key != "DATABASE_URL" }
    // Where nothing listens: a delivery that looked for a proxy in the environment would fail.
    for name in ["http_proxy", "https_proxy", "all_proxy"] { all[name] = "http://127.0.0.1:1" }
    all.merge(environment) { $1 }
    process.environment = all
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output ?? FileHandle.nullDevice
    process.standardError = errors ?? FileHandle.nullDevice
    try process.run()
    pid = process.processIdentifier
    exit = Task.detached {
      await withCheckedContinuation { continuation in
        Thread.detachNewThread {
          process.waitUntilExit()
          continuation.resume(returning: process.terminationStatus)
        }
      }
    }
  }

  package func signal(_ number: Int32) { kill(pid, number) }
  package func waitForExit() async -> Int32 { await exit.value }

  /// Runs a command to its end.
  package static func run(_ arguments: String..., environment: [String: String] = [:]) async throws -> Result {
    try await run(arguments, environment: environment)
  }

  package static func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Result {
    // Files rather than pipes: nobody need drain them.
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let files = ["out", "err"].map { directory.appendingPathComponent($0) }
    for file in files { try Data().write(to: file) }
    let process = try MartletProcess(
      arguments,
      environment: environment,
      output: FileHandle(forWritingTo: files[0]),
      errors: FileHandle(forWritingTo: files[1])
    )
    let status = await process.waitForExit()
    return Result(
      status: status,
      output: try String(contentsOf: files[0], encoding: .utf8),
      errors: try String(contentsOf: files[1], encoding: .utf8)
    )
  }

  /// A dispatcher for a test database and receivers on loopback.
  package static func dispatcher(_ database: TestDatabase, lease: Int = 3, _ more: String...) throws -> MartletProcess {
    try MartletProcess(
      [
        "dispatch", "--database-url", database.connectionString, "--allow-http", "--allow-network", "127.0.0.0/8",
        "--lease", "\(lease)",
      ] + more
    )
  }
}
