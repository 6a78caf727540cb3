import Foundation
import Synchronization

/// A throwaway PostgreSQL server of our own: for `martlet demo`, the benchmarks and the tests.
///
/// It listens on 127.0.0.1 and on a unix socket in its own directory, lets every local user in without a password
/// (never use it for data that matters), and is stopped and removed with `stop()`. When this process dies, whatever
/// way, a keeper process stops and removes it instead.
package final class EmbeddedPostgres: Sendable {
  /// The loopback port. It stays the same over `restart`, `halt` and `resume`.
  package let port: UInt16
  /// Holds the data directory, the unix socket, the log and the certificates; goes away with `stop()`.
  package let directory: URL
  /// As the server prints it, such as `15.18` or `18beta1`.
  package let version: String
  /// The certificate authority that signed the server's certificate, with `Options.tls` only.
  package let caFile: URL?

  private let binaries: PostgresBinaries
  private let tools: ToolRunner
  private let keeper: Keeper
  private let startTimeout: Duration
  private let postmaster = Mutex<ChildProcess?>(nil)

  private init(cluster: Cluster, port: UInt16, timeout: Duration) {
    self.port = port
    directory = cluster.directory
    version = cluster.version
    caFile = cluster.caFile
    binaries = cluster.binaries
    tools = cluster.tools
    keeper = cluster.keeper
    startTimeout = timeout
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
    let server = EmbeddedPostgres(cluster: cluster, port: port, timeout: options.startTimeout)
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
    let name = database.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? database
    guard let caFile else { return "postgres://postgres@127.0.0.1:\(port)/\(name)" }
    return "postgres://postgres@localhost:\(port)/\(name)?sslmode=verify-full&sslrootcert=\(caFile.path)"
  }

  /// Makes a database and returns its connection string. A template must have no open connection.
  package func createDatabase(_ name: String, template: String? = nil) async throws -> String {
    let arguments = ["-h", socketDirectory.path, "-p", "\(port)", "-U", "postgres", "-w"]
    let from = template.map { ["-T", $0] } ?? []
    try await tools.run([binaries.client("createdb")] + arguments + from + ["--", name])
    return connectionString(database: name)
  }

  /// Stops the server and keeps data and port for `resume()`. Does nothing if it is not running.
  package func halt(_ mode: StopMode = .fast, within limit: Duration = .seconds(60)) async throws {
    guard let child = postmaster.withLock({ $0 }) else { return }
    child.signal(mode.signal)
    guard try await child.waitForExit(within: limit) != nil else {
      throw EmbeddedPostgresError.stopTimedOut(mode, after: limit)
    }
    forget(child)
  }

  /// Starts the server on the same port and data again, and returns once it accepts connections.
  package func resume() async throws {
    if pid != nil { return }
    let log = try Log(logFile)
    let child = try tools.spawnAsOwner(
      [binaries.postgres, "-D", dataDirectory.path],
      output: logFile,
      announcing: keeper
    )
    postmaster.withLock { $0 = child }
    let status = PostmasterStatus(dataDirectory: dataDirectory)
    let deadline = ContinuousClock.now + startTimeout
    while !status.isReady(pid: child.pid) {
      if let exit = child.exitStatus() {
        forget(child)
        let tail = log.tail()
        throw tail.contains("could not create any TCP/IP sockets") || tail.contains("Address already in use")
          ? EmbeddedPostgresError.portTaken(port, log: tail) : .startFailed(exit, log: tail)
      }
      if ContinuousClock.now > deadline {
        try await kill()
        throw EmbeddedPostgresError.startTimedOut(after: startTimeout, log: log.tail())
      }
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  package func restart(_ mode: StopMode = .fast) async throws {
    try await halt(mode)
    try await resume()
  }

  /// Kills the postmaster and all its backends with SIGKILL and returns when all of them are gone.
  ///
  /// Backends notice a dead postmaster by themselves only when they next wait, so a busy one would go on writing.
  package func kill() async throws {
    guard let child = postmaster.withLock({ $0 }) else { return }
    // A stopped postmaster neither forks nor reaps, so the list is complete and no process id in it is reused.
    child.signal(SIGSTOP)
    let backends = ProcessTable.children(of: child.pid)
    for backend in backends { _ = Foundation.kill(backend, SIGKILL) }
    child.signal(SIGKILL)
    let deadline = ContinuousClock.now + .seconds(30)
    while child.exitStatus() == nil || backends.contains(where: ProcessTable.isRunning) {
      guard ContinuousClock.now < deadline else { throw EmbeddedPostgresError.stopTimedOut(nil, after: .seconds(30)) }
      try await Task.sleep(for: .milliseconds(2))
    }
    forget(child)
  }

  /// Ends the server with a fast shutdown (an immediate one if that takes too long) and removes its directory.
  package func stop() async throws {
    // Unstructured, because cleaning up must not be cut short when the caller has been cancelled.
    try await Task {
      do { try await halt(.fast, within: .seconds(20)) } catch EmbeddedPostgresError.stopTimedOut { try await kill() }
      await keeper.finish()
    }.value
  }

  private func forget(_ child: ChildProcess) {
    keeper.watch(nil)
    postmaster.withLock { if $0 === child { $0 = nil } }
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
