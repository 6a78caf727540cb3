import Foundation
import Synchronization

/// A throwaway PostgreSQL server of our own: for `martlet demo`, the benchmarks and the tests.
///
/// It listens on 127.0.0.1 and on a unix socket in its own directory, lets every local user in without a password
/// (never use it for data that matters), and is stopped and removed with `stop()`. When this process dies, whatever
/// way, or drops its last reference, a keeper process stops and removes it instead. So hold on to it (or use
/// `withEmbeddedPostgres`): Swift may release an object after its last use, not at the end of its scope.
package final class EmbeddedPostgres: Sendable {
  /// The loopback port. It stays the same over `restart`, `halt` and `resume`.
  package let port: UInt16
  /// Holds the data directory, the unix socket, the log and the certificates; goes away with `stop()`.
  package let directory: URL
  /// As the server prints it, such as `15.18` or `18beta1`.
  package let version: String
  /// The certificate authority that signed the server's certificate, with `Options.tls` only.
  package let caFile: URL?

  let binaries: PostgresBinaries
  let tools: ToolRunner
  let keeper: Keeper
  let startTimeout: Duration
  let prefix: [String]
  /// nil while the server is not running, as far as we have looked.
  let postmaster = Mutex<ChildProcess?>(nil)

  private init(cluster: Cluster, port: UInt16, _ options: Options) {
    self.port = port
    directory = cluster.directory
    version = cluster.version
    caFile = cluster.caFile
    binaries = cluster.binaries
    tools = cluster.tools
    keeper = cluster.keeper
    startTimeout = options.startTimeout
    prefix = options.prefix
  }

  /// Makes a new cluster in a fresh directory, starts it and returns once it accepts connections.
  package static func start(_ options: Options = Options()) async throws -> EmbeddedPostgres {
    let cluster = try await Cluster.create(options)
    do {
      // Another process may take the port between our look and the server's bind.
      for _ in 0..<4 {
        do {
          return try await start(cluster, options)
        } catch EmbeddedPostgresError.portTaken {
          continue
        }
      }
      return try await start(cluster, options)
    } catch {
      await cluster.keeper.finish()
      throw error
    }
  }

  private static func start(_ cluster: Cluster, _ options: Options) async throws -> EmbeddedPostgres {
    let port = try FreePort.find()
    try cluster.writeConfiguration(port: port, options)
    let server = EmbeddedPostgres(cluster: cluster, port: port, options)
    try await server.resume()
    return server
  }

  /// The postmaster's process id, nil while the server is not running.
  package var pid: pid_t? { postmaster.withLock { $0 }.flatMap { $0.exitStatus() == nil ? $0.pid : nil } }
  package var dataDirectory: URL { directory.appendingPathComponent("data") }
  package var logFile: URL { directory.appendingPathComponent("server.log") }
  /// What libpq calls `host` for a connection over the unix socket.
  package var socketDirectory: URL { directory }
  package var majorVersion: Int { Int(version.prefix { $0.isNumber }) ?? 0 }
  /// A libpq URI of database `postgres` as the superuser.
  package var connectionString: String { connectionString(database: "postgres") }

  package func connectionString(database: String) -> String {
    let name = Self.encode(database)
    guard let caFile else { return "postgres://postgres@127.0.0.1:\(port)/\(name)" }
    let tls = "sslmode=verify-full&sslrootcert=\(Self.encode(caFile.path))"
    return "postgres://postgres@localhost:\(port)/\(name)?\(tls)"
  }

  private static func encode(_ text: String) -> String {
    let plain = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~".utf8)
    return text.utf8.map { plain.contains($0) ? String(UnicodeScalar($0)) : "%" + Self.hex($0) }.joined()
  }

  private static func hex(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
  }

  /// Makes a database and returns its connection string. A template must have no open connection.
  package func createDatabase(_ name: String, template: String? = nil) async throws -> String {
    let arguments = ["-h", socketDirectory.path, "-p", "\(port)", "-U", "postgres", "-w"]
    let from = template.map { ["-T", $0] } ?? []
    try await tools.run([binaries.client("createdb")] + arguments + from + ["--", name])
    return connectionString(database: name)
  }
}

/// Runs the body with a server that is gone afterwards, whether the body returns or throws.
package func withEmbeddedPostgres<Result>(
  _ options: EmbeddedPostgres.Options = .init(),
  _ body: (EmbeddedPostgres) async throws -> Result
) async throws -> Result {
  let server = try await EmbeddedPostgres.start(options)
  let result: Result
  do {
    result = try await body(server)
  } catch {
    try? await server.stop()  // The body's error matters more; the keeper removes what is left.
    throw error
  }
  try await server.stop()
  return result
}
