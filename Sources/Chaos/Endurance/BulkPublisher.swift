import Foundation
import Postgres
import Rig

/// A client of the application that publishes as much as it is permitted, a hundred events a transaction: committed, rolled
/// back, with a savepoint rolled back, open for a while, two-phase both ways.
///
/// The numbers of its events say whose they are and which key they have. Nobody else publishes for its keys, so their
/// numbers are in the order of commits.
struct BulkPublisher {
  static let count = 3
  static let eventsPerTransaction = 100
  static let schema = """
    CREATE TABLE app_batch (id bigint PRIMARY KEY);
    GRANT SELECT, INSERT ON app_batch TO app;
    """

  /// A transaction, and what became of it. `first` counts this publisher's events.
  struct Batch: Codable, Sendable {
    var publisher: Int
    var first: Int
    var count: Int
    /// So many of the first ones were not rolled back to a savepoint.
    var kept: Int
    var isCommitted: Bool
    /// COMMIT got no answer.
    var wasLookedUp: Bool

    func number(_ index: Int) -> Int { (first + index) * BulkPublisher.count + publisher }
  }

  private enum Kind {
    case plain, rolledBack, savepoint, long, prepared, unprepared

    var end: TransactionEnd {
      switch self {
      case .plain, .savepoint, .long: .commit
      case .rolledBack: .rollBack
      case .prepared: .prepareAndCommit
      case .unprepared: .prepareAndRollBack
      }
    }
  }

  /// One event in so many has a key, of which each publisher has so many: deliveries of one key wait for each other, and
  /// the run shall not wait for them.
  private static let keyed = 16
  private static let keys = 500
  static func key(of number: Int) -> Int? {
    let index = number / count
    return index % keyed == 0 ? index / keyed % keys * count + number % count : nil
  }

  private let publisher: Int
  private var random: SeededGenerator
  private var next = 0

  init(publisher: Int, seed: UInt64) {
    self.publisher = publisher
    random = SeededGenerator(seed: seed, stream: 10 + publisher)
  }

  /// One transaction, and what became of it.
  mutating func publish(_ connected: () throws(PostgresError) -> Connection) throws -> Batch {
    let kind: Kind =
      switch Int.random(in: 0..<1000, using: &random) {
      case 0..<40: .rolledBack
      case 40..<80: .savepoint
      case 80..<85: .long
      case 85..<110: .prepared
      case 110..<130: .unprepared
      default: .plain
      }
    let pause = Double.random(in: 0.2...1.5, using: &random)
    let count = Self.eventsPerTransaction
    var batch = Batch(
      publisher: publisher,
      first: next,
      count: count,
      kept: kind == .savepoint ? count / 2 : count,
      isCommitted: kind.end.commits,
      wasLookedUp: false
    )
    next += count
    do {
      try work(kind, batch, pause, connected())
    } catch let error as PostgresError {
      batch.wasLookedUp = true
      let id = batch.number(0)
      batch.isCommitted = try TransactionLookUp(gid: "bulk-\(id)", table: "app_batch", id: id)
        .isCommitted(connected, after: error)
    }
    return batch
  }

  private func work(_ kind: Kind, _ batch: Batch, _ pause: Double, _ connection: Connection) throws {
    let id = batch.number(0)
    try connection.execute("BEGIN")
    _ = try connection.query("INSERT INTO app_batch VALUES ($1)", [.int8(Int64(id))])
    try insert(batch.first, batch.kept, connection)
    if batch.kept < batch.count {
      try connection.execute("SAVEPOINT s")
      try insert(batch.first + batch.kept, batch.count - batch.kept, connection)
      try connection.execute("ROLLBACK TO SAVEPOINT s")
    }
    if kind == .long { Thread.sleep(forTimeInterval: pause) }
    try kind.end.carryOut("bulk-\(id)", connection)
  }

  /// About 500 bytes as a request's body. The key is what ``key(of:)`` says.
  private func insert(_ first: Int, _ count: Int, _ connection: Connection) throws {
    _ = try connection.query(
      """
      INSERT INTO outbox.event (type, key, payload)
      SELECT 'order.created', CASE WHEN i % \(Self.keyed) = 0 THEN 'k' || (i / \(Self.keyed) % \(Self.keys) * $4 + $3) END,
        jsonb_build_object('n', i * $4 + $3, 'customer', md5(i::text), 'currency', 'EUR', 'note', repeat('n', 330))
      FROM generate_series($1::bigint, $2) i
      """,
      [
        .int8(Int64(first)), .int8(Int64(first + count - 1)), .int8(Int64(publisher)), .int8(Int64(Self.count)),
      ]
    )
  }
}
