import EmbeddedPostgres
import Foundation
import Postgres
import Synchronization

/// PostgreSQL, with a synchronous standby if the scene wants one.
final class Servers: Sendable {
  /// First the primary.
  private let all: Mutex<[EmbeddedPostgres]>

  init(settings: [String: String], directory: URL?, standby: Bool, prefix: [String] = []) async throws {
    let options = EmbeddedPostgres.Options(settings: settings, directory: directory, fsync: true, prefix: prefix)
    let primary = try await EmbeddedPostgres.start(options)
    all = Mutex([primary])
    guard standby else { return }
    do {
      let second = try await EmbeddedPostgres.start(options)
      all.withLock { $0.append(second) }
      try await attachStandby()
    } catch {
      await stop()
      throw error
    }
  }

  var primary: EmbeddedPostgres { all.withLock { $0[0] } }

  func connectionString(user: String, database: String = "postgres") -> String {
    // In the order of ports: which one is the primary is for the client to find out.
    let hosts = all.withLock { $0.map(\.port) }.sorted().map { "127.0.0.1:\($0)" }
    return "postgres://\(user)@\(hosts.joined(separator: ","))/\(database)"
  }

  /// The primary dies, the standby takes its place. As a cluster manager does, it then no longer waits for a standby.
  func promote() async throws {
    let (old, new) = all.withLock { ($0[0], $0[1]) }
    try await old.kill()
    try await execute(new, writable: false, ["SELECT pg_promote()"])
    try await execute(new, ["ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"])
    all.withLock { $0 = [new, old] }
  }

  /// Makes the second server a standby of the primary, and has commits wait for it from then on.
  func attachStandby() async throws {
    let (primary, standby) = all.withLock { ($0[0], $0[1]) }
    try await standby.follow(primary)
    try await execute(primary, ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"])
    let session = Session(.init(connectionString: primary.connectionString))
    try await eventually("the standby is in step", within: .seconds(30)) {
      try await session.withConnection { connection in
        try connection.query("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").count == 1
      }
    }
  }

  func stop() async {
    // A failure to stop is left to each server's keeper.
    for server in all.withLock({ $0 }) { try? await server.stop() }
  }

  private func execute(_ server: EmbeddedPostgres, writable: Bool = true, _ statements: [String]) async throws {
    let session = Session(.init(connectionString: server.connectionString, requiresWritable: writable))
    try await session.withConnection { connection in
      for statement in statements { try connection.execute(statement) }
    }
  }
}
