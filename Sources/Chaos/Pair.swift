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
  /// Dispatchers, by the ids of their leases, that stood still when `inFlight` was counted, and were taken over from, if at
  /// all, after that: no more than this may be repeated of what they held.
  var victims: Set<Int64> = []
  /// Whether what arrived between `began` and `ended` was in flight under the fault, too: its answers may have been lost.
  var coversArrivals = false
}
