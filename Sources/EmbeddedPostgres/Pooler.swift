import Foundation
import Synchronization

/// A pgbouncer in transaction mode in front of a throwaway server.
package final class Pooler: Sendable {
  /// nil if it is not installed.
  package static let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
    .first { FileManager.default.isExecutableFile(atPath: $0) }

  package let port: UInt16
  private let directory: URL
  private let command: [String]
  private let child = Mutex<ChildProcess?>(nil)

  /// Writes what it needs into `directory`, which the service user must be able to enter. Nothing is started yet.
  package init(
    program: String,
    server: EmbeddedPostgres,
    user: String = "postgres",
    serverConnections: Int,
    directory: URL
  ) throws {
    port = try FreePort.find()
    self.directory = directory
    let file = directory.appendingPathComponent("pgbouncer.ini")
    try Data(
      """
      [databases]
      * = host=127.0.0.1 port=\(server.port) user=\(user)
      [pgbouncer]
      listen_addr = 127.0.0.1
      listen_port = \(port)
      unix_socket_dir =
      auth_type = any
      pool_mode = transaction
      default_pool_size = \(serverConnections)
      max_client_conn = 50

      """.utf8
    ).write(to: file)
    command = try ServiceUser.ifRoot()?.command([program, file.path]) ?? [program, file.path]
  }

  /// A connection string for any client: all become `user` at the server.
  package var connectionString: String { "postgres://app@127.0.0.1:\(port)/postgres" }
  package var exitStatus: ExitStatus? { child.withLock { $0?.exitStatus() } }

  /// - Parameter spawn: starts a command with its output going to a file; for callers whose children have a keeper.
  package func start(_ spawn: (([String], URL) throws -> ChildProcess)? = nil) throws {
    let log = directory.appendingPathComponent("pgbouncer.log")
    let child = try spawn?(command, log) ?? ChildProcess(command, in: directory, output: log)
    self.child.withLock { $0 = child }
  }

  /// Returns it, reaped.
  @discardableResult
  package func kill() async -> ChildProcess? {
    let child = child.withLock { child in
      defer { child = nil }
      return child
    }
    guard let child else { return nil }
    child.signal(SIGKILL)
    // Unstructured, because this must happen after a cancellation too.
    _ = await Task { try? await child.waitForExit(within: .seconds(20)) }.value
    return child
  }
}
