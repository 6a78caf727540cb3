import Foundation
import OutboxStore
import Postgres

/// What the demo asks the database.
struct OutboxRecord {
  let connection: Connection

  init(_ connection: Connection) { self.connection = connection }

  struct Progress: Sendable {
    var delivered: Int
    var waiting: Int
    var dead: Int
    /// Neither waits anything that is still to be sent, nor is anything in flight, nor has anything not been taken from
    /// the log.
    var isSettled: Bool
  }

  func progress(published: Int) throws -> Progress {
    let rows = try connection.query(
      """
      SELECT (SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered'),
        (SELECT count(*) FROM outbox.delivery d JOIN outbox.endpoint e ON e.id = d.endpoint_id WHERE e.state <> 'disabled'),
        (SELECT count(*) FROM outbox.dead_letter), (SELECT count(*) FROM outbox.in_flight), c.events, c.missing
      FROM outbox.conservation(now() - interval '1 hour') c
      """
    )
    func count(_ column: Int) throws -> Int { Int(try rows.required(rows.int64(0, column), column)) }
    let waiting = try count(1)
    return Progress(
      delivered: try count(0),
      waiting: waiting,
      dead: try count(2),
      isSettled: try waiting == 0 && count(3) == 0 && count(4) == published
    )
  }

  /// Deliveries to an endpoint that a dispatcher is making.
  func inFlight(dispatcher: String, endpoint: Int64) throws -> Int {
    let rows = try connection.query(
      """
      SELECT count(*) FROM outbox.in_flight f JOIN outbox.dispatcher d ON d.id = f.dispatcher_id
      WHERE d.name = $1 AND f.endpoint_id = $2
      """,
      [.text(dispatcher), .int8(endpoint)]
    )
    return Int(try rows.required(rows.int64(0, 0), 0))
  }

  func dispatchers() throws -> [String] {
    let rows = try connection.query("SELECT name FROM outbox.dispatcher WHERE expires_at > clock_timestamp()")
    return (0..<rows.count).compactMap { rows.string($0, 0) }
  }

  func isRegistered(_ dispatcher: String) throws -> Bool {
    try connection.query("SELECT 1 FROM outbox.dispatcher WHERE name = $1", [.text(dispatcher)]).count > 0
  }

  func delivered(to endpoint: Int64) throws -> Set<UUID> {
    try ids("SELECT DISTINCT event_id FROM outbox.attempt WHERE endpoint_id = $1 AND outcome = 'delivered'", endpoint)
  }

  /// Delivered, and not at the first try.
  func retried(to endpoint: Int64) throws -> Int {
    try ids(
      """
      SELECT DISTINCT d.event_id FROM outbox.attempt d JOIN outbox.attempt f USING (event_id, endpoint_id)
      WHERE d.endpoint_id = $1 AND d.outcome = 'delivered' AND f.outcome IN ('failed', 'unknown')
      """,
      endpoint
    ).count
  }

  func waiting(for endpoint: Int64) throws -> Set<UUID> {
    try ids("SELECT event_id FROM outbox.delivery WHERE endpoint_id = $1", endpoint)
  }

  func dead(of endpoint: Int64) throws -> [UUID: String] {
    let rows = try connection.query(
      "SELECT event_id, reason FROM outbox.dead_letter WHERE endpoint_id = $1",
      [.int8(endpoint)]
    )
    var dead: [UUID: String] = [:]
    for row in 0..<rows.count { dead[try rows.required(rows.uuid(row, 0), 0)] = rows.string(row, 1) }
    return dead
  }

  /// Whether the log and the application's table hold the same events: those the application says it committed.
  func holdsExactly(_ published: Set<UUID>) throws -> Bool {
    func all(_ sql: String) throws -> Set<UUID> {
      let rows = try connection.query(sql)
      return Set(try (0..<rows.count).map { try rows.required(rows.uuid($0, 0), 0) })
    }
    return try all("SELECT id FROM outbox.event") == published && all("SELECT event_id FROM shop_order") == published
  }

  /// Events whose body does not carry what was published: PostgreSQL compares the two as JSON, exactly.
  func altered(_ published: [ShopRecord.Published], bodies: [UUID: [UInt8]]) throws -> [UUID] {
    try published.filter { publication in
      guard let body = bodies[publication.id] else { return false }
      let rows = try connection.query(
        """
        SELECT body ->> 'type' = $2 AND body -> 'data' = $3::jsonb -> 'payload' FROM (SELECT $1::jsonb) b(body)
        """,
        [
          .jsonb(String(decoding: body, as: UTF8.self)), .text(publication.event.type), .jsonb(publication.event.json),
        ]
      )
      return try rows.bool(0, 0) != true
    }.map(\.id)
  }

  private func ids(_ sql: String, _ endpoint: Int64) throws -> Set<UUID> {
    let rows = try connection.query(sql, [.int8(endpoint)])
    return Set(try (0..<rows.count).map { try rows.required(rows.uuid($0, 0), 0) })
  }
}
