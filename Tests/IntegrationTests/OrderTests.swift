import Foundation
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

/// Order by key, over several dispatchers, real exchanges and every trouble that there is.
@Suite struct OrderTests {
  /// The numbers of each key as they were accepted, repeats left out: a delivery may come twice where a dispatcher died.
  private func accepted(_ listener: Listener, keys: Int) -> [Int: [Int]] {
    var order: [Int: [Int]] = [:]
    var seen: Set<Int> = []
    for n in listener.accepted().compactMap(\.n) where seen.insert(n).inserted {
      order[n % keys, default: []].append(n)
    }
    return order
  }

  /// A lease is taken away, over and over, while a tenth of all requests fails.
  @Test func threeDispatchersKeepTheOrderThroughFailuresAndLostLeases() async throws {
    let (keys, events) = (10, 600)
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, count in
      count == 0 && (arrival.n ?? 0) % 11 == 0 ? Reply(status: 500) : Reply(status: 200, delay: .milliseconds(2))
    }
    _ = try await database.addEndpoint(
      listener.url(),
      options:
        "ordered => true, first_delay => '20 ms', multiplier => 1, failure_threshold => 1000, failure_rate => NULL"
    )
    try await database.execute("SELECT outbox.stamp_subscriptions()")
    let others = [try RunningDispatcher(database), try RunningDispatcher(database)]
    try await withDispatcher(database) { _ in
      for round in 0..<(events / 20) {
        try await database.publish(20, first: round * 20, key: "'k' || i % \(keys)")
        if round % 6 == 3 {
          // What another dispatcher does once a lease has run out; in one transaction, or it would be renewed in between.
          try await database.execute(
            """
            BEGIN; UPDATE outbox.dispatcher SET expires_at = now() - interval '1 s'
              WHERE id = (SELECT min(id) FROM outbox.dispatcher);
            SELECT outbox.recover(); COMMIT
            """
          )
        }
      }
      try await eventually("all have arrived") { Set(listener.accepted().compactMap(\.n)).count == events }
      try await eventually("all is recorded") { try await database.isSettled() }
    }
    for other in others { try await other.stop() }
    for (key, order) in accepted(listener, keys: keys) { #expect(order == order.sorted(), "key \(key)") }
    #expect(try await database.missing() == 0)
  }

  /// Heads that fail for good hold their keys, and only those; redriven, they go first.
  @Test func failingHeadHoldsOnlyItsKeyUntilItIsRedriven() async throws {
    let (keys, events) = (20, 400)
    let database = try await TestDatabase.make()
    let mended = Switch()
    // The second event of every fifth key.
    let listener = try await Listener { arrival, _ in
      let n = arrival.n ?? 0
      return !mended.isOn && n / keys == 1 && n % 5 == 0 ? Reply(status: 500) : .ok
    }
    let endpoint = try await database.addEndpoint(
      listener.url(),
      options: """
        ordered => true, on_dead_letter => 'hold', retry_delays => '{20 ms}', failure_threshold => 1000, failure_rate => NULL
        """
    )
    let others = [try RunningDispatcher(database), try RunningDispatcher(database)]
    try await withDispatcher(database) { _ in
      for round in 0..<(events / keys) {
        try await database.publish(keys, first: round * keys, key: "'k' || i % \(keys)")
      }
      let (free, held) = (16 * 20 + 4, 4 * 18)
      try await eventually("all others have arrived") { Set(listener.accepted().compactMap(\.n)).count == free }
      try await eventually("the rest waits") { try await database.int("SELECT count(*) FROM outbox.delivery") == held }
      #expect(try await database.int("SELECT count(*) FROM outbox.dead_letter WHERE seq IS NOT NULL") == 4)
      #expect(try await database.missing() == 0)
      mended.turnOn()
      #expect(try await database.int("outbox.redrive_where(\(endpoint))") == 4)
      try await eventually("all have arrived") { Set(listener.accepted().compactMap(\.n)).count == events }
      try await eventually("all is recorded") { try await database.isSettled() }
    }
    for other in others { try await other.stop() }
    for (key, order) in accepted(listener, keys: keys) { #expect(order == order.sorted(), "key \(key)") }
    #expect(listener.accepted().count == events)
    #expect(try await database.missing() == 0)
  }

  /// Two thousand keys side by side, every tenth head failing at first.
  @Test func thousandsOfKeysGoOnSideBySide() async throws {
    let keys = 2000
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, count in
      let n = arrival.n ?? 0
      return n < keys && n % 10 == 0 && count < 2 ? Reply(status: 500) : .ok
    }
    _ = try await database.addEndpoint(
      listener.url(),
      options:
        "ordered => true, first_delay => '50 ms', multiplier => 1, failure_threshold => 100000, failure_rate => NULL"
    )
    let others = [try RunningDispatcher(database), try RunningDispatcher(database)]
    try await withDispatcher(database) { _ in
      try await database.publish(keys * 2, first: 0, key: "'k' || i % \(keys)")
      try await eventually("all have arrived", within: .seconds(180)) { listener.accepted().count == keys * 2 }
    }
    for other in others { try await other.stop() }
    let order = accepted(listener, keys: keys)
    #expect(order.count == keys && order.values.allSatisfy { $0.count == 2 && $0 == $0.sorted() })
  }
}
