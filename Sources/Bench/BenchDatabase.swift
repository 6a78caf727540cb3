import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres

/// A database of the throwaway server with schema outbox in it, and the questions a benchmark asks it.
struct BenchDatabase: Sendable {
  let connectionString: String
  let session: Session
  private let server: EmbeddedPostgres

  /// What is not PostgreSQL's default. Durable as in production; only the buffer is larger than the 128 MB of 1990s.
  static let settings = ["shared_buffers": "256MB"]

  static func create(_ name: String, on server: EmbeddedPostgres) async throws -> BenchDatabase {
    let connectionString = try await server.createDatabase(name)
    let session = Session(ConnectionConfiguration(connectionString: connectionString, statementTimeout: .seconds(3600)))
    try await session.withConnection { _ = try Migrator($0).migrate() }
    return BenchDatabase(connectionString: connectionString, session: session, server: server)
  }

  func drop() async throws {
    await session.disconnect()
    let name = connectionString.split(separator: "/").last.map(String.init) ?? ""
    let other = Session(ConnectionConfiguration(connectionString: server.connectionString))
    try await other.withConnection { try $0.execute("DROP DATABASE \(name)") }
  }

  func addEndpoint(_ url: String, eventTypes: [String] = ["*"], maxInFlight: Int = 32) async throws {
    try await session.withConnection {
      _ = try $0.query(
        "SELECT outbox.add_endpoint($1, event_types => $2, max_in_flight => $3)",
        [.text(url), .textArray(eventTypes), .int4(Int32(clamping: maxInFlight))]
      )
    }
  }

  /// Another connection to the same database, with a thread of its own.
  func anotherSession() -> Session {
    Session(ConnectionConfiguration(connectionString: connectionString, statementTimeout: .seconds(3600)))
  }

  /// Whether the log has been cut to its end.
  func isCut() async throws -> Bool {
    try await numbers(
      """
      SELECT (p.after_tx IS NULL AND pg_visible_in_snapshot(newest.tx, p.done))::int
      FROM (SELECT * FROM outbox.position ORDER BY id DESC LIMIT 1) p,
           (SELECT tx FROM outbox.event ORDER BY tx DESC, id DESC LIMIT 1) newest
      """
    ).first == 1
  }

  /// Whether, moreover, no lease on any of it is left and nothing waits: every outcome is recorded.
  func isDrained() async throws -> Bool {
    try await numbers(
      """
      SELECT (p.after_tx IS NULL AND p.events >= 0 AND pg_visible_in_snapshot(newest.tx, p.done)
              AND NOT EXISTS (SELECT FROM outbox.batch) AND NOT EXISTS (SELECT FROM outbox.delivery))::int
      FROM (SELECT * FROM outbox.position ORDER BY id DESC LIMIT 1) p,
           (SELECT tx FROM outbox.event ORDER BY tx DESC, id DESC LIMIT 1) newest
      """
    ).first == 1
  }

  func waitUntilCut(within limit: Duration) async throws {
    try await wait(within: limit, every: .milliseconds(50), for: "the cut of the whole log") { try await isCut() }
  }

  /// From here on the reconciler can prove that nothing is missing.
  func stampSubscriptions() async throws {
    try await session.withConnection { _ = try $0.query("SELECT outbox.stamp_subscriptions()") }
  }

  /// That every event published since, one delivery each, is accounted for.
  func requireNothingMissing() async throws -> Conservation {
    let found = try await conservation()
    let published = try await numbers("SELECT count(*) FROM outbox.event").first.map { Int($0) }
    guard found.missing == 0, found.pairs == published else {
      throw BenchError("lost: of \(published ?? 0) events \(found)")
    }
    return found
  }

  /// That so many pairs were delivered, each at the first try and once; how long it took by the database's clock, from
  /// the newest lease to the last outcome, and how many were parked and claimed.
  func requireDelivered(_ pairs: Int) async throws -> (seconds: Double, claimed: Double) {
    let found = try await numbers(
      """
      SELECT extract(epoch FROM max(a.at) - (SELECT max(d.started_at) FROM outbox.dispatcher d)),
        count(*) FILTER (WHERE a.batch_id IS NULL), count(*) FILTER (WHERE a.outcome = 'delivered'), count(*),
        count(DISTINCT (a.event_id, a.endpoint_id)), (SELECT count(*) FROM outbox.delivery),
        (SELECT count(*) FROM outbox.dead_letter)
      FROM outbox.attempt a
      """
    )
    let expected = [pairs, pairs, pairs, 0, 0].map(Double.init)
    guard Array(found[2...6]) == expected else {
      throw BenchError("wrong: delivered, attempts, pairs, waiting, dead are \(found[2...6]), not \(expected)")
    }
    return (found[0], found[1])
  }

  /// How many tries there have been, without looking at each.
  func attempts() async throws -> Double {
    try await numbers(
      """
      SELECT (SELECT count(*) FROM outbox.attempt_single)
        + (SELECT coalesce(sum(cardinality(p.event_ids)), 0) FROM outbox.attempt_packed p)
      """
    )[0]
  }

  /// What the reconciler counts, of everything.
  func conservation() async throws -> Conservation {
    let found = try await numbers(
      """
      SELECT pairs, delivered, waiting, in_flight, dead, missing
      FROM outbox.conservation(clock_timestamp() - interval '1 day', max_events => 100000000)
      """
    ).map { Int($0) }
    return Conservation(
      pairs: found[0],
      delivered: found[1],
      waiting: found[2],
      inFlight: found[3],
      dead: found[4],
      missing: found[5]
    )
  }

  /// Many at once, taking turns at the addresses. `eventTypes`: an SQL expression of the one pattern of endpoint `n`, from 1.
  func addEndpoints(_ count: Int, urls: [String], eventTypes: String, maxInFlight: Int = 32) async throws {
    try await session.withConnection {
      _ = try $0.query(
        """
        SELECT count(outbox.add_endpoint($1[1 + n % cardinality($1)], event_types => ARRAY[\(eventTypes)], max_in_flight => $3))
        FROM generate_series(1, $2) n
        """,
        [.textArray(urls), .int4(Int32(clamping: count)), .int4(Int32(clamping: maxInFlight))]
      )
    }
  }

  /// Events like an application's: a small JSON object, `bodyBytes` long once it is wrapped as a request's body, 1000 a
  /// transaction. No two alike.
  func preload(events: Int, bodyBytes: Int) async throws {
    for first in stride(from: 1, through: events, by: 1000) {
      try await insert(first...min(events, first + 999), bodyBytes: bodyBytes)
    }
    // The preload's own writing shall not be paid for while the drain is measured.
    try await session.withConnection { try $0.execute("CHECKPOINT") }
  }

  /// Such events in one transaction, into the log or a table like it. `type`: an SQL expression of the event's number, `n`.
  func insert(
    _ numbers: ClosedRange<Int>,
    into table: String = "outbox.event",
    type: String = "'order.created'",
    bodyBytes: Int
  ) async throws {
    let filler = max(0, bodyBytes - Self.envelopeBytes - 105)
    try await session.withConnection { connection in
      _ = try connection.query(
        """
        INSERT INTO \(table) (type, payload)
        SELECT \(type), jsonb_build_object('n', n, 'customer', md5(n::text), 'currency', 'EUR',
          'total_cents', n % 100000, 'note', left(repeat(md5((-n)::text), $3 / 32 + 1), $3))
        FROM generate_series($1, $2) n
        """,
        [.int4(Int32(numbers.lowerBound)), .int4(Int32(numbers.upperBound)), .int4(Int32(filler))]
      )
    }
  }

  /// `{"type":"order.created","timestamp":"…27…","data":` and `}`.
  private static let envelopeBytes = 77

  /// Bodies as the dispatcher will send them (but for the timestamp in them), of some of the events.
  func bodies() async throws -> [[UInt8]] {
    try await session.withConnection { connection in
      let rows = try connection.query("SELECT payload FROM outbox.event ORDER BY id LIMIT 1000")
      var bodies: [[UInt8]] = []
      for row in 0..<rows.count {
        let head = #"{"type":"order.created","timestamp":"2026-11-24T05:53:26.776655Z","data":"#
        bodies.append(Array(head.utf8) + Array(try rows.required(rows.json(row, 0), 0)) + [UInt8(ascii: "}")])
      }
      return bodies
    }
  }

  func numbers(_ sql: String) async throws -> [Double] {
    try await session.withConnection { connection in
      let result = try connection.queryText(sql)
      return result.rows.first?.map { $0.flatMap(Double.init) ?? .nan } ?? []
    }
  }

  func show(_ names: [String]) async throws -> [String: String] {
    try await session.withConnection { connection in
      var values: [String: String] = [:]
      for name in names {
        values[name] = try connection.queryText("SELECT current_setting($1)", [.text(name)]).rows.first?.first ?? nil
      }
      return values
    }
  }

  /// The settings every report states.
  func settings() async throws -> [String: String] {
    try await show([
      "fsync", "synchronous_commit", "full_page_writes", "autovacuum", "shared_buffers", "max_wal_size", "wal_level",
    ])
  }
}

/// What has become of the pairs of event and endpoint.
package struct Conservation: Sendable, Codable {
  package var pairs: Int
  package var delivered: Int
  package var waiting: Int
  package var inFlight: Int
  package var dead: Int
  package var missing: Int
}
