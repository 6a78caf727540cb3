import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Synchronization

/// A database with the schema in it, on a server that the test process starts once and that ends with it.
package final class TestDatabase: Sendable {
  package let server: EmbeddedPostgres
  package let connectionString: String
  package let session: Session

  private init(server: EmbeddedPostgres, connectionString: String) {
    self.server = server
    self.connectionString = connectionString
    self.session = Session(ConnectionConfiguration(connectionString: connectionString))
  }

  /// On the shared server: for tests that leave it running.
  package static func make(migrated: Bool = true) async throws -> TestDatabase {
    try await make(on: shared.value, migrated: migrated)
  }

  /// On a server of its own, with fsync as in production: for tests that break it.
  package static func makeAlone(settings: [String: String] = [:]) async throws -> TestDatabase {
    try await make(on: EmbeddedPostgres.start(.init(settings: settings, fsync: true)), migrated: true)
  }

  private static func make(on server: EmbeddedPostgres, migrated: Bool) async throws -> TestDatabase {
    let name = "t\(counter.add(1, ordering: .relaxed).newValue)"
    let database = TestDatabase(server: server, connectionString: try await server.createDatabase(name))
    if migrated { _ = try await database.session.withConnection { try Migrator($0).migrate().count } }
    return database
  }

  private static let counter = Atomic(0)
  private static let shared = Task {
    try await EmbeddedPostgres.start(.init(settings: ["max_prepared_transactions": "20", "max_connections": "500"]))
  }

  package func newSession() async throws -> Session {
    Session(ConnectionConfiguration(connectionString: connectionString))
  }

  package func execute(_ sql: String) async throws {
    try await session.withConnection { try $0.execute(sql) }
  }

  /// Every value as text.
  package func rows(_ sql: String) async throws -> [[String?]] {
    try await session.withConnection { try $0.queryText(sql).rows }
  }

  package func int(_ sql: String) async throws -> Int {
    try await session.withConnection { connection in
      let rows = try connection.query("SELECT (\(sql))::bigint")
      return Int(try rows.int64(0, 0) ?? 0)
    }
  }

  /// Adds an endpoint; `options` are further named arguments of outbox.add_endpoint.
  package func addEndpoint(_ url: String, types: String = "{*}", options: String = "") async throws -> Int {
    let more = options.isEmpty ? "" : ", \(options)"
    return try await int("outbox.add_endpoint('\(url)', '\(types)'\(more))")
  }

  /// Publishes `count` events in one transaction, with payloads `{"n": first…}`.
  package func publish(_ count: Int, type: String = "order.created", first: Int = 1, key: String = "NULL") async throws
  {
    try await execute(
      """
      INSERT INTO outbox.event (type, key, payload)
      SELECT '\(type)', \(key), jsonb_build_object('n', i) FROM generate_series(\(first), \(first + count - 1)) i
      """
    )
  }

  /// Whether nothing is in flight and nothing waits.
  package func isSettled() async throws -> Bool {
    try await int("SELECT (SELECT count(*) FROM outbox.batch) + (SELECT count(*) FROM outbox.delivery)") == 0
  }

  /// What the reconciler has to say of conservation: the number of missing deliveries, over everything in the log.
  package func missing() async throws -> Int {
    try await int("SELECT missing FROM outbox.conservation(now() - interval '1 day', max_events => 10000000)")
  }
}

/// Polls until the condition holds; throws after `deadline`.
package func eventually(
  _ what: String,
  within deadline: Duration = .seconds(60),
  _ condition: () async throws -> Bool
) async throws {
  let end = ContinuousClock.now + deadline
  while true {
    if try await condition() { return }
    guard ContinuousClock.now < end else { throw Impatience(what: what) }
    try await Task.sleep(for: .milliseconds(10))
  }
}

package struct Impatience: Error, CustomStringConvertible {
  var what: String
  package var description: String { "waited in vain until \(what)" }
}
