import Foundation
import OutboxStore
import Postgres
import Testing

/// Everybody at once on the same endpoints, as fast as they can: nobody waits for anybody in a circle, and the books
/// balance in the end.
@Suite struct ConcurrencyTests {
  @Test func dispatchersAndOperatorsNeverDeadlock() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      let client = database.client()
      let endpoints: [Int64] = [1, 2, 3, 4, 5, 6]
      for endpoint in endpoints {
        let more = ["rate_limit => 300", "on_dead_letter => 'hold'", "disable_after => '1 s'"][Int(endpoint) % 3]
        let options = "ordered => \(endpoint % 2 == 0), failure_threshold => 3, \(more)"
        #expect(try await client.addEndpoint(options) == endpoint)
      }
      try await client.store { try $0.stampSubscriptions() }
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<3 {
          group.addTask { try await dispatch(database, endpoints, SeededGenerator(seed &+ UInt64(number))) }
        }
        for number in 10..<12 {
          group.addTask { try await operate(database, endpoints, SeededGenerator(seed &+ UInt64(number))) }
        }
        group.addTask {
          let publisher = database.client()
          for round in 0..<60 { try await publisher.publish(10, key: round % 2 == 0 ? "k\(round % 6)" : nil) }
        }
        do {
          try await group.waitForAll()
        } catch {
          let log = try String(contentsOf: database.server.logFile, encoding: .utf8).replacing("\n\t", with: " ")
          let own = log.split(separator: "\n").filter { $0.hasPrefix("\(database.name)|DETAIL:") }
          Issue.record("the server's log: \(own.joined(separator: "; "))")
          throw error
        }
      }
      #expect(try await client.rows("SELECT missing FROM outbox.conservation('-infinity')") == [["0"]])
      let asleep = """
        SELECT count(*) FROM (SELECT FROM outbox.delivery d WHERE key IS NOT NULL
          GROUP BY endpoint_id, key HAVING count(*) FILTER (WHERE ready) <> CASE WHEN EXISTS (
            SELECT FROM outbox.dead_letter l WHERE l.endpoint_id = d.endpoint_id AND l.key = d.key AND l.seq IS NOT NULL)
            THEN 0 ELSE 1 END) x
        """
      #expect(try await client.int(asleep) == 0)
      let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
      #expect(try await client.int(deadlocks) == 0)
    }
  }

  private func dispatch(_ database: Database, _ endpoints: [Int64], _ generator: SeededGenerator) async throws {
    var generator = generator
    var worker = try await Worker(database)
    for round in 0..<80 {
      var outcomes: [Outcome] = []
      var finished: [Int64] = []
      if let cut = try await worker.cut(events: 20, direct: 60), let batch = cut.batch {
        outcomes += cut.outcomes()
        finished.append(batch)
      }
      outcomes += try await worker.claim(endpoints.shuffled(using: &generator), slots: 4).map { $0.outcome() }
      outcomes.shuffle(using: &generator)
      for index in outcomes.indices {
        switch Int.random(in: 0..<10, using: &generator) {
        case 0...2:
          outcomes[index].kind = .failed
          outcomes[index].retryIn = .zero
        case 3:
          outcomes[index].kind = .failed
          outcomes[index].reason = ["gone", "exhausted"].randomElement(using: &generator)
        default: break
        }
      }
      if round % 20 == 19 {  // dies with what it holds
        try await worker.expire()
        worker = try await Worker(database)
      } else {
        try await worker.record(outcomes, finished: finished)
      }
      _ = try await worker.client.store { try $0.recover() }
    }
    _ = try await worker.client.store { [id = worker.id] in try $0.release(dispatcher: id) }
    _ = try await worker.client.store { try $0.recover() }
  }

  private func operate(_ database: Database, _ endpoints: [Int64], _ generator: SeededGenerator) async throws {
    var generator = generator
    let client = database.client()
    for _ in 0..<120 {
      let endpoint = endpoints.randomElement(using: &generator)!
      let step =
        switch Int.random(in: 0..<9, using: &generator) {
        case 0: "SELECT outbox.redrive_where(\(endpoint))"
        case 1: "SELECT outbox.redrive_where()"
        case 2: "SELECT outbox.resume(\(endpoint))"
        case 3: "SELECT outbox.pause(\(endpoint))"
        case 4: "SELECT outbox.maintain()"
        case 5:
          "SELECT outbox.discard(id) FROM outbox.dead_letter WHERE endpoint_id = \(endpoint) AND seq IS NOT NULL LIMIT 1"
        // Not `ordered`: to switch it beside a record of failures can end in a deadlock. PostgreSQL resolves that, and a
        // recorder tries again; whoever switches must do so, too.
        case 6: "UPDATE outbox.endpoint SET max_in_flight = 65 - max_in_flight WHERE id = \(endpoint)"
        case 7:
          "UPDATE outbox.endpoint SET on_dead_letter = CASE on_dead_letter WHEN 'hold' THEN 'skip' ELSE 'hold' END WHERE id = \(endpoint)"
        default: "SELECT outbox.reconcile()"
        }
      do {
        _ = try await client.rows(step)
      } catch let error as PostgresError where error.sqlState == "P0002" {
        // The other operator was faster.
      }
      // One at a time: who writes several rows in one statement locks them in any order.
      try await client.execute(
        "UPDATE outbox.endpoint SET state = 'enabled' WHERE state = 'disabled' AND id = \(endpoint)"
      )
    }
  }
}
