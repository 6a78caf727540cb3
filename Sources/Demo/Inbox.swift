import Foundation
import Receiver
import Rig
import Synchronization

/// The first body that came of each event, to hold all others against, whichever endpoint they come to.
final class Bodies: Sendable {
  private let first = Mutex<[UUID: [UInt8]]>([:])

  /// Whether the body is, byte for byte, the one that came first.
  func agrees(_ id: UUID, _ body: [UInt8]) -> Bool {
    first.withLock { first in
      if let known = first[id] { return known == body }
      first[id] = body
      return true
    }
  }

  var all: [UUID: [UInt8]] { first.withLock { $0 } }
}

/// What a receiver answers, and its own record of what arrived. It knows nothing of the database.
final class Inbox: Sendable {
  private struct State {
    var arrivals: [Arrival] = []
    var refused = 0
    var hangs: Bool
    var random: SeededGenerator
  }

  let target: Target
  private let bodies: Bodies
  private let state: Mutex<State>

  init(_ target: Target, bodies: Bodies, random: SeededGenerator) {
    self.target = target
    self.bodies = bodies
    state = Mutex(State(hangs: target == .analytics, random: random))
  }

  var arrivals: [Arrival] { state.withLock { $0.arrivals } }
  /// Requests whose signature does not hold, or that name no event.
  var refusedCount: Int { state.withLock { $0.refused } }

  func stopHanging() { state.withLock { $0.hangs = false } }

  func reply(to delivery: ReceivedDelivery) -> Reply {
    // Decided and noted under one lock, so that the record is in the order of the answers.
    state.withLock { state in
      guard delivery.verification == .verified, let id = delivery.webhookID.flatMap({ UUID(uuidString: $0) }) else {
        state.refused += 1
        return Reply(status: 401)
      }
      let reply = answer(&state)
      state.arrivals.append(
        Arrival(
          id: id,
          status: reply.hangs ? nil : reply.status,
          at: delivery.receivedAt,
          bodyIsSame: bodies.agrees(id, delivery.body)
        )
      )
      return reply
    }
  }

  private func answer(_ state: inout State) -> Reply {
    if state.hangs { return .hang }
    // Ordinary latencies. Billing's is long enough for the kill to find some of its deliveries on the way.
    let range = target == .billing ? 20...80 : 5...20
    let work = Duration.milliseconds(Int.random(in: range, using: &state.random))
    switch target {
    case .legacy: return Reply(status: 410)
    case .billing, .warehouse: return Reply(status: state.random.happens(0.05) ? 500 : 200, delay: work)
    case .analytics, .partner: return Reply(status: 200, delay: work)
    }
  }
}
