/// A delivery to be: an event, by the number in its payload, and an endpoint, by its place in the scene.
struct Pair: Hashable, Sendable {
  var event: Int
  var endpoint: Int
}

/// One injection of a fault, and what it can have made repeat.
struct Incident: Sendable {
  var fault: Fault
  var began: ContinuousClock.Instant
  var ended: ContinuousClock.Instant
  /// In flight, or answered and not recorded, when the fault took effect: what the database said then.
  var inFlight: Set<Pair> = []
  /// Whether what arrived between `began` and `ended` was in flight under the fault, too: its answers may have been lost.
  var coversArrivals = false
}
