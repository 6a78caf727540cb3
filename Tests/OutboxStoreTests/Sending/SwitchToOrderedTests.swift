import Foundation
import OutboxStore
import Postgres
import Testing

/// `ordered` switched on while deliveries wait.
@Suite struct SwitchToOrderedTests {
  @Test func whatWaitsIsPutInOrder() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      for number in 1...6 { try await worker.client.publish(1, key: number % 2 == 0 ? "even" : "odd", from: number) }
      try await worker.client.publish(2, from: 50)
      _ = try await worker.cut(direct: 0)
      // Retries had changed the order in which they are due.
      try await worker.client.execute(
        "UPDATE outbox.delivery SET due_at = now() - interval '1 min' WHERE seq > 4"
      )
      try await worker.client.execute("UPDATE outbox.endpoint SET ordered = true")
      try await worker.client.publish(1, key: "odd", from: 7)
      _ = try await worker.drain()
      var order: [Int] = []
      while case let claimed = try await worker.claim([endpoint]), !claimed.isEmpty {
        order += claimed.map(\.event.number)
        try await worker.record(claimed.map { $0.outcome() })
      }
      #expect(order.filter { $0 < 50 && $0 % 2 == 1 } == [1, 3, 5, 7])
      #expect(order.filter { $0 < 50 && $0 % 2 == 0 } == [2, 4, 6])
      #expect(Set(order).count == 9)
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  /// What is in flight at that moment is out of anybody's hands; nothing sleeps because of it.
  @Test func whatIsInFlightEndsAsItBegan() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(5, key: "k")
      _ = try await worker.cut(direct: 0)
      let flying = try await worker.claim([endpoint], slots: 2)
      try await worker.client.execute("UPDATE outbox.endpoint SET ordered = true")
      let next = try await worker.claim([endpoint])
      #expect(next.map(\.event.number) == [3])
      try await worker.record([flying[1].outcome(), flying[0].outcome(.failed)])
      var order: [Int] = []
      try await worker.record(next.map { $0.outcome() })
      while case let claimed = try await worker.claim([endpoint]), !claimed.isEmpty {
        order += claimed.map(\.event.number)
        try await worker.record(claimed.map { $0.outcome() })
      }
      #expect(order.filter { $0 > 1 } == [4, 5] && order.contains(1))
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }
}
