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
    let session = Session(ConnectionConfiguration(connectionString: connectionString, statementTimeout: .seconds(600)))
    try await session.withConnection { _ = try Migrator($0).migrate() }
    return BenchDatabase(connectionString: connectionString, session: session, server: server)
  }

  func drop() async throws {
    await session.disconnect()
    let name = connectionString.split(separator: "/").last.map(String.init) ?? ""
    let other = Session(ConnectionConfiguration(connectionString: server.connectionString))
    try await other.withConnection { try $0.execute("DROP DATABASE \(name)") }
  }

  func addEndpoint(_ url: String, maxInFlight: Int) async throws {
    try await session.withConnection {
      _ = try $0.query(
        "SELECT outbox.add_endpoint($1, max_in_flight => $2)",
        [.text(url), .int4(Int32(clamping: maxInFlight))]
      )
    }
  }

  /// Events like an application's: a small JSON object, `bodyBytes` long once it is wrapped as a request's body, 1000 a
  /// transaction. No two alike.
  func preload(events: Int, bodyBytes: Int) async throws {
    let filler = max(0, bodyBytes - Self.envelopeBytes - 105)
    try await session.withConnection { connection in
      var first = 1
      while first <= events {
        let last = min(events, first + 999)
        _ = try connection.query(
          """
          INSERT INTO outbox.event (type, payload)
          SELECT 'order.created', jsonb_build_object('n', n, 'customer', md5(n::text), 'currency', 'EUR',
            'total_cents', n % 100000, 'note', left(repeat(md5((-n)::text), $3 / 32 + 1), $3))
          FROM generate_series($1, $2) n
          """,
          [.int4(Int32(first)), .int4(Int32(last)), .int4(Int32(filler))]
        )
        first = last + 1
      }
      // The preload's own writing shall not be paid for while the drain is measured.
      try connection.execute("CHECKPOINT")
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
