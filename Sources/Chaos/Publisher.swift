import Foundation
import Postgres
import Rig

/// A client of the application: transactions of every kind, one after the other, for as long as they are permitted.
///
/// Each transaction leaves a row in a table of the application's, as applications do. If a COMMIT got no answer, that row
/// says what became of it.
struct Publisher {
  static let count = 6
  static let schema = """
    CREATE TABLE app_transaction (id bigint PRIMARY KEY);
    CREATE TABLE app_key (key text PRIMARY KEY, events bigint NOT NULL DEFAULT 0);
    INSERT INTO app_key SELECT 'k' || i FROM generate_series(1, \(keyCount)) i;
    GRANT SELECT, INSERT, UPDATE ON app_transaction, app_key TO app;
    """
  private static let keyCount = 12

  private enum Kind {
    case single, several, rolledBack, savepoint, long, prepared, unprepared

    var end: TransactionEnd {
      switch self {
      case .single, .several, .savepoint, .long: .commit
      case .rolledBack: .rollBack
      case .prepared: .prepareAndCommit
      case .unprepared: .prepareAndRollBack
      }
    }
  }

  private let publisher: Int
  private var random: SeededGenerator
  /// Of transactions and events; no other publisher has the same.
  private var numbers = 0

  init(publisher: Int, seed: UInt64) {
    self.publisher = publisher
    random = SeededGenerator(seed: seed, stream: 10 + publisher)
  }

  private mutating func nextNumber() -> Int {
    numbers += 1
    return numbers * Self.count + publisher
  }

  /// One transaction, and what became of it.
  mutating func publish(_ connected: () throws(PostgresError) -> Connection) throws -> Journal.Transaction {
    let kind: Kind =
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<40: .single
      case 40..<65: .several
      case 65..<75: .rolledBack
      case 75..<84: .savepoint
      case 84..<86: .long
      case 86..<95: .prepared
      default: .unprepared
      }
    let id = nextNumber()
    var transaction = Journal.Transaction()
    do {
      // Noted before the COMMIT is sent, so that it is known even if no answer comes.
      try work(kind, id, connected(), &transaction)
      transaction.isCommitted = kind.end.commits
    } catch let error as PostgresError {
      transaction.wasLookedUp = true
      transaction.isCommitted = try TransactionLookUp(gid: "chaos-\(id)", table: "app_transaction", id: id)
        .isCommitted(connected, after: error)
    }
    return transaction
  }

  private mutating func work(
    _ kind: Kind,
    _ id: Int,
    _ connection: Connection,
    _ transaction: inout Journal.Transaction
  ) throws {
    let count = kind == .single ? 1 : Int.random(in: 2...5, using: &random)
    let key = random.happens(0.6) ? "k\(Int.random(in: 1...Self.keyCount, using: &random))" : nil
    let delay = Double.random(in: 0.2...1.5, using: &random)
    // Half of the transactions have their id before they have their key.
    let writesFirst = random.happens(0.5)
    let write = { _ = try connection.query("INSERT INTO app_transaction VALUES ($1)", [.int8(Int64(id))]) }
    try connection.execute("BEGIN")
    if writesFirst { try write() }
    var index: Int?
    if let key {
      // Transactions of one key follow each other.
      let rows = try connection.query("SELECT events FROM app_key WHERE key = $1 FOR UPDATE", [.text(key)])
      index = Int(try rows.required(rows.int64(0, 0), 0))
    }
    if !writesFirst { try write() }
    for position in 0..<count {
      if kind == .savepoint, position == 1 {
        let undone = nextNumber()
        transaction.undone.append(undone)
        try connection.execute("SAVEPOINT s")
        try insert(undone, key, connection)
        try connection.execute("ROLLBACK TO SAVEPOINT s")
      }
      if kind == .long, position == 1 { Thread.sleep(forTimeInterval: delay) }
      let place = key.flatMap { key in index.map { Journal.Place(key: key, index: $0 + position) } }
      let number = nextNumber()
      transaction.events.append(.init(number: number, place: place))
      try insert(number, key, connection)
    }
    if let key {
      _ = try connection.query(
        "UPDATE app_key SET events = events + $2 WHERE key = $1",
        [.text(key), .int8(Int64(count))]
      )
    }
    try kind.end.carryOut("chaos-\(id)", connection)
  }

  private func insert(_ number: Int, _ key: String?, _ connection: Connection) throws {
    _ = try connection.query(
      "INSERT INTO outbox.event (type, key, payload) VALUES ('order.created', $1, $2)",
      [.text(key), .jsonb("{\"n\": \(number)}")]
    )
  }
}
