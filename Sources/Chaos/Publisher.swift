import Foundation
import Postgres
import Rig

/// A client of the application: transactions of every kind, one after the other, until it is told to stop.
///
/// Each transaction leaves a row in a table of the application's, as applications do. If a COMMIT got no answer, that row
/// says what became of it.
struct Publisher: Sendable {
  static let schema = """
    CREATE TABLE app_transaction (id bigint PRIMARY KEY);
    CREATE TABLE app_key (key text PRIMARY KEY, events bigint NOT NULL DEFAULT 0);
    INSERT INTO app_key SELECT 'k' || i FROM generate_series(1, \(keyCount)) i;
    GRANT SELECT, INSERT, UPDATE ON app_transaction, app_key TO app;
    """
  static let keyCount = 12

  enum Kind: CaseIterable {
    case single, several, rolledBack, savepoint, long, prepared, unprepared
  }

  let session: Session
  let journal: Journal
  var random: SeededGenerator
  /// Between two transactions.
  var pause = Duration.milliseconds(40)

  mutating func run(until isOver: @escaping @Sendable () -> Bool) async throws {
    while !isOver() {
      let roll = Int.random(in: 0..<100, using: &random)
      let kind: Kind =
        switch roll {
        case 0..<40: .single
        case 40..<65: .several
        case 65..<75: .rolledBack
        case 75..<84: .savepoint
        case 84..<86: .long
        case 86..<95: .prepared
        default: .unprepared
        }
      try await publish(kind)
      try await Task.sleep(for: pause)
    }
  }

  private struct Draft: Sendable {
    var id: Int
    var events: [Journal.Event] = []
    var undone: [Int] = []
  }

  private mutating func publish(_ kind: Kind) async throws {
    let journal = journal
    let id = journal.nextNumber()
    let count = kind == .single ? 1 : Int.random(in: 2...5, using: &random)
    let key = random.happens(0.6) ? "k\(Int.random(in: 1...Self.keyCount, using: &random))" : nil
    let delay = Double.random(in: 0.2...1.5, using: &random)
    var draft = Draft(id: id)
    var isUnknown = false
    var isCommitted = false
    do {
      // Noted before the COMMIT is sent, so that it is known even if no answer comes.
      let box = Box(draft)
      defer { draft = box.draft }
      try await session.withConnection { connection in
        try Self.work(kind, count, key, delay, box, connection, journal)
      }
      isCommitted = kind != .rolledBack && kind != .unprepared
    } catch let error as PostgresError {
      isUnknown = error.kind == .connection || kind == .prepared || kind == .unprepared
      // What the server refused was rolled back, except of a transaction that was prepared before.
    }
    if isUnknown { isCommitted = try await lookUp(id) }
    journal.note(draft.events, committed: isCommitted, undone: draft.undone, lookedUp: isUnknown)
  }

  // @unchecked: written on the session's thread while `publish` waits for it, and read after that.
  private final class Box: @unchecked Sendable {
    var draft: Draft
    init(_ draft: Draft) { self.draft = draft }
  }

  private static func work(
    _ kind: Kind,
    _ count: Int,
    _ key: String?,
    _ delay: Double,
    _ box: Box,
    _ connection: Connection,
    _ journal: Journal
  ) throws {
    try connection.execute("BEGIN")
    // Every other transaction has its id before it has its key.
    let writesFirst = box.draft.id % 2 == 0
    let write = { _ = try connection.query("INSERT INTO app_transaction VALUES ($1)", [.int8(Int64(box.draft.id))]) }
    if writesFirst { try write() }
    var index: Int?
    if let key {
      // Transactions of one key follow each other.
      let rows = try connection.query("SELECT events FROM app_key WHERE key = $1 FOR UPDATE", [.text(key)])
      index = Int(try rows.required(rows.int64(0, 0), 0))
    }
    if !writesFirst { try write() }
    for position in 0..<count {
      let number = journal.nextNumber()
      if kind == .savepoint, position == 1 {
        let undone = journal.nextNumber()
        try connection.execute("SAVEPOINT s")
        try insert(undone, key, connection)
        try connection.execute("ROLLBACK TO SAVEPOINT s")
        box.draft.undone.append(undone)
      }
      if kind == .long, position == 1 { Thread.sleep(forTimeInterval: delay) }
      try insert(number, key, connection)
      box.draft.events.append(.init(number: number, place: key.flatMap { key in index.map { (key, $0 + position) } }))
    }
    if let key {
      _ = try connection.query(
        "UPDATE app_key SET events = events + $2 WHERE key = $1",
        [.text(key), .int8(Int64(count))]
      )
    }
    try end(kind, box.draft.id, connection)
  }

  private static func end(_ kind: Kind, _ id: Int, _ connection: Connection) throws {
    switch kind {
    case .single, .several, .savepoint, .long:
      try connection.execute("COMMIT")
    case .rolledBack: try connection.execute("ROLLBACK")
    case .prepared:
      try connection.execute("PREPARE TRANSACTION 'chaos-\(id)'")
      try connection.execute("COMMIT PREPARED 'chaos-\(id)'")
    case .unprepared:
      try connection.execute("PREPARE TRANSACTION 'chaos-\(id)'")
      try connection.execute("ROLLBACK PREPARED 'chaos-\(id)'")
    }
  }

  private static func insert(_ number: Int, _ key: String?, _ connection: Connection) throws {
    _ = try connection.query(
      "INSERT INTO outbox.event (type, key, payload) VALUES ('order.created', $1, $2)",
      [.text(key), .jsonb("{\"n\": \(number)}")]
    )
  }

  /// What became of a transaction, asked until there is an answer. One that is still prepared is rolled back: nobody was
  /// told that it is committed.
  private func lookUp(_ id: Int) async throws -> Bool {
    while true {
      do {
        return try await session.withConnection { connection in
          let prepared = try connection.query(
            "SELECT 1 FROM pg_prepared_xacts WHERE gid = $1",
            [.text("chaos-\(id)")]
          )
          if prepared.count > 0 { try connection.execute("ROLLBACK PREPARED 'chaos-\(id)'") }
          return try connection.query("SELECT 1 FROM app_transaction WHERE id = $1", [.int8(Int64(id))]).count > 0
        }
      } catch is PostgresError {
        try await Task.sleep(for: .milliseconds(100))
      }
    }
  }
}
