import Foundation
import OutboxStore
import Postgres
import Testing

/// Everything at once: every kind of publisher against three cutters with random limits. What was cut is then compared
/// with what was committed, row by row.
@Suite struct CutStressTests {
  private static let writers = 9
  private static let roundsPerWriter = 40

  @Test func everyCommittedEventIsCutExactlyOnce() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      let auditor = database.client()
      // Two of three events go straight out, the rest are parked; each reaches exactly one endpoint.
      try await auditor.addEndpoint("event_types => '{direct}'")
      try await auditor.addEndpoint("event_types => '{keyed}', ordered => true")

      let writing = Flag()
      let taken = try await withThrowingTaskGroup(of: [UUID].self) { group in
        for cutter in 0..<3 {
          group.addTask { try await cutUntil(writing, database, SeededGenerator(seed &+ 1_000 &+ UInt64(cutter))) }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
          for writer in 0..<Self.writers {
            group.addTask {
              var publisher = Publisher(database, writer, SeededGenerator(seed &+ UInt64(writer)))
              try await publisher.run(Self.roundsPerWriter)
            }
          }
          group.addTask {  // 100,000 in one transaction, while the others go on
            try await database.client().publish(100_000, type: "direct")
          }
          try await group.waitForAll()
        }
        writing.end()
        return try await group.reduce(into: []) { $0 += $1 }
      }

      #expect(Set(taken).count == taken.count, "an event went straight out twice")
      try await auditor.execute("CREATE TABLE taken (id uuid)")
      try await auditor.session.withConnection {
        _ = try $0.query("INSERT INTO taken SELECT unnest($1)", [.uuidArray(taken)])
      }
      try await auditor.execute("INSERT INTO taken SELECT event_id FROM outbox.delivery")
      let count = try await auditor.int("SELECT count(*) FROM outbox.event")
      #expect(count > 100_000)
      #expect(try await auditor.int("SELECT count(*) FROM taken") == count)
      // What was rolled back is not in the log: had it been cut, it would be missing here.
      #expect(try await auditor.int("SELECT count(*) FROM taken t JOIN outbox.event USING (id)") == count)
      // What one transaction published for a key waits in the order of its insertion, and only a key's head is ready.
      let disorder = """
        SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY e.tx, d.key ORDER BY d.seq) AS previous
          FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id WHERE d.key IS NOT NULL) x WHERE previous > id
        """
      #expect(try await auditor.int(disorder) == 0)
      #expect(
        try await auditor.int("SELECT count(*) FROM outbox.delivery WHERE ready AND key IS NOT NULL")
          == auditor.int("SELECT count(DISTINCT key) FROM outbox.delivery")
      )
    }
  }

  /// Cuts until the writers have ended and nothing is left, and returns what went straight out.
  private func cutUntil(_ writing: Flag, _ database: Database, _ generator: SeededGenerator) async throws -> [UUID] {
    var generator = generator
    let worker = try await Worker(database)
    var taken: [UUID] = []
    var empty = 0
    while empty < 3 {
      let ended = !writing.isSet
      let cut = try await worker.cut(
        events: .random(in: 1...3_000, using: &generator),
        direct: .random(in: 1...2_000, using: &generator),
        perEndpoint: .random(in: 1...2_000, using: &generator),
        bytes: .random(in: 1...500_000, using: &generator)
      )
      taken += cut?.pairs.map(\.event) ?? []
      empty = cut == nil && ended ? empty + 1 : 0
    }
    return taken
  }
}

/// Set until it is ended, from any task.
private final class Flag: @unchecked Sendable {  // `set` is only touched under the lock.
  private let lock = NSLock()
  private var set = true
  var isSet: Bool { lock.withLock { set } }
  func end() { lock.withLock { set = false } }
}
