import Foundation

/// Runs PostgreSQL's and OpenSSL's programs for one server.
struct ToolRunner: Sendable {
  let directory: URL
  let user: ServiceUser?

  /// Runs a program to its end and returns what it printed.
  @discardableResult
  func run(_ arguments: [String], within limit: Duration = .seconds(120)) async throws -> String {
    let output = directory.appendingPathComponent("tool-\(UUID().uuidString).log")
    return try await finish(ChildProcess(arguments, in: directory, output: output), arguments, output, limit)
  }

  /// The same as the user the server runs as.
  @discardableResult
  func runAsOwner(
    _ arguments: [String],
    within limit: Duration = .seconds(120),
    announcing keeper: Keeper
  ) async throws -> String {
    let output = directory.appendingPathComponent("tool-\(UUID().uuidString).log")
    let child = try spawnAsOwner(arguments, output: output, announcing: keeper)
    defer { keeper.watch(nil) }
    return try await finish(child, arguments, output, limit)
  }

  /// Starts a program as the user the server runs as, and tells the keeper of it.
  func spawnAsOwner(_ arguments: [String], output: URL, announcing keeper: Keeper) throws -> ChildProcess {
    let command = user?.command(arguments) ?? arguments
    let child = try ChildProcess(command, in: directory, output: output)
    keeper.watch(child.pid)
    return child
  }

  private func finish(
    _ child: ChildProcess,
    _ arguments: [String],
    _ output: URL,
    _ limit: Duration
  ) async throws -> String {
    let name = URL(fileURLWithPath: arguments[0]).lastPathComponent
    defer { try? FileManager.default.removeItem(at: output) }  // The directory goes away with the server anyway.
    do {
      guard let status = try await child.waitForExit(within: limit) else {
        throw EmbeddedPostgresError.toolTimedOut(name, after: limit)
      }
      let text = String(decoding: try Data(contentsOf: output), as: UTF8.self)
      guard status == .exited(0) else { throw EmbeddedPostgresError.toolFailed(name, status, output: text) }
      return text
    } catch {
      child.signal(SIGKILL)
      // Unstructured, because the process must be reaped though we may have been cancelled.
      _ = await Task { try? await child.waitForExit(within: .seconds(5)) }.value
      throw error
    }
  }
}
