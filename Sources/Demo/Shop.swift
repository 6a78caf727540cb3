import Foundation
import Postgres
import Rig
import Synchronization

/// The example application's own account of what it did.
final class ShopRecord: Sendable {
  struct Published: Sendable {
    var id: UUID
    var event: FileEvent
    /// As published: keys of later rounds through a short file differ from those of the file.
    var key: String?
  }

  struct State: Sendable {
    /// Events of one key stand in the order of their commits, since one client writes them all.
    var published: [Published] = []
    var rolledBack: Set<UUID> = []
    var transactions = 0
  }

  private let state = Mutex(State())

  var snapshot: State { state.withLock { $0 } }
  var publishedCount: Int { state.withLock { $0.published.count } }

  func committed(_ events: [Published], rolledBack: [UUID]) {
    state.withLock {
      $0.published += events
      $0.rolledBack.formUnion(rolledBack)
      $0.transactions += 1
    }
  }

  func abandoned(_ ids: [UUID]) { state.withLock { $0.rolledBack.formUnion(ids) } }
}

/// One client of the example application: writes orders and their events in the same transactions.
struct ShopClient: Sendable {
  static let schema = """
    CREATE TABLE shop_order (
      id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      placed_at timestamptz NOT NULL DEFAULT now(),
      reference text,
      event_id  uuid NOT NULL UNIQUE
    )
    """

  typealias Planned = (event: FileEvent, key: String?)

  let session: Session
  let plan: [Planned]
  let source: String
  let record: ShopRecord
  var random: SeededGenerator

  /// Writes the whole plan, evenly over `duration`, one to three events a transaction.
  mutating func run(over duration: Duration) async throws {
    let start = ContinuousClock.now
    var next = 0
    while next < plan.count {
      let end = min(plan.count, next + Int.random(in: 1...3, using: &random))
      try await write(Array(plan[next..<end]))
      next = end
      try await Task.sleep(until: start + duration * (Double(next) / Double(plan.count)))
    }
  }

  /// Some transactions are rolled back and done again, as applications do; some go back to a savepoint on the way.
  private mutating func write(_ events: [Planned]) async throws {
    let source = source
    if random.happens(0.1) {
      do {
        try await session.withConnection { connection in
          try connection.transaction { connection in
            throw Abandoned(ids: try events.map { try Self.order($0, source, connection) })
          }
        }
      } catch let abandoned as Abandoned {
        record.abandoned(abandoned.ids)
      }
    }
    let revises = random.happens(0.1)
    let (undone, ids) = try await session.withConnection { connection in
      try connection.transaction { connection in
        var undone: [UUID] = []
        if revises {
          try connection.execute("SAVEPOINT revise")
          undone = try events.prefix(1).map { try Self.order($0, source, connection) }
          try connection.execute("ROLLBACK TO SAVEPOINT revise")
        }
        return (undone, try events.map { try Self.order($0, source, connection) })
      }
    }
    record.committed(
      zip(ids, events).map { ShopRecord.Published(id: $0, event: $1.event, key: $1.key) },
      rolledBack: undone
    )
  }

  private struct Abandoned: Error { var ids: [UUID] }

  /// The row of the shop and its event: two statements of the shop's own transaction.
  private static func order(_ planned: Planned, _ source: String, _ connection: Connection) throws -> UUID {
    do throws(PostgresError) {
      return try order(planned, connection)
    } catch {
      throw refusal(error, of: planned.event, source) ?? error
    }
  }

  private static func order(_ planned: Planned, _ connection: Connection) throws(PostgresError) -> UUID {
    let published = try connection.query(
      "SELECT outbox.publish($1, $2::jsonb -> 'payload', $3)",
      [.text(planned.event.type), .jsonb(planned.event.json), .text(planned.key)]
    )
    let id = try published.required(published.uuid(0, 0), 0)
    _ = try connection.query(
      "INSERT INTO shop_order (reference, event_id) VALUES ($1, $2)",
      [.text(planned.key), .uuid(id)]
    )
    return id
  }

  /// What is wrong with an event rather than with the database: data exceptions, violated constraints, exceeded limits.
  private static func refusal(_ error: PostgresError, of event: FileEvent, _ source: String) -> (any Error)? {
    guard ["22", "23", "54"].contains(error.sqlState.prefix(2)) else { return nil }
    let detail = error.detail.map { " (\($0))" } ?? ""
    return DemoError("\(source), line \(event.line): PostgreSQL refuses it: \(error.message)\(detail)")
  }
}
