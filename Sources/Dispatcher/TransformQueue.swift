import DeliveryCore
import Synchronization

/// Departures whose body a function in the database has yet to make, on their way to the ``TransformLoop``: an endpoint's
/// one after the other, the endpoints in turn. A slow function thus holds up the others by one call at a time.
final class TransformQueue: Sendable {
  private struct State {
    // The desk bounds what departs.
    var waiting = FlightControl<Desk.Departure>(capacity: .max, maxInFlight: 1)
    var isShut = false
  }
  private let state = Mutex(State())
  let bell = Bell()

  /// Returns those that can no longer be taken.
  func put(_ departures: [Desk.Departure]) -> [Desk.Departure] {
    guard !departures.isEmpty else { return [] }
    let refused = state.withLock { state in
      guard !state.isShut else { return departures }
      for departure in departures {
        state.waiting.enqueue(departure, endpoint: departure.endpoint.id, limit: 1)
      }
      return []
    }
    bell.ring()
    return refused
  }

  /// The next one; `done` must follow.
  func next() -> Desk.Departure? { state.withLock { $0.waiting.start().first } }
  func done(_ departure: Desk.Departure) { state.withLock { $0.waiting.finish(endpoint: departure.endpoint.id) } }

  /// Takes nothing more, and returns what waits.
  func shutDown() -> [Desk.Departure] {
    let left = state.withLock { state in
      state.isShut = true
      return state.waiting.withdrawAll()
    }
    bell.ring()
    return left
  }
  var isShut: Bool { state.withLock(\.isShut) }
}
