import DequeModule

/// Which of the deliveries held in memory goes next: a queue per endpoint, served in turn, each endpoint within its own
/// limit and all within one.
///
/// Memory is shared by the rule of dynamic thresholds (Choudhury and Hahne, 1998): an endpoint may hold at most as much as
/// is still free. One busy endpoint can use half of all there is, two a third each, and something always remains for the
/// one that comes next: however many endpoints hang, a newcomer is served at once.
package struct FlightControl<Item> {
  private struct Lane {
    var queue: Deque<Item> = []
    var inFlight = 0
    var limit = 1
    var isInRing = false
    var held: Int { queue.count + inFlight }
  }

  /// Deliveries held at most, queued and in flight together.
  package let capacity: Int
  /// Deliveries in flight at most, over all endpoints.
  package let maxInFlight: Int
  package private(set) var inFlight = 0
  package private(set) var held = 0
  private var lanes: [Int64: Lane] = [:]
  /// Endpoints that have something queued and may start it; each at most once.
  private var ring: Deque<Int64> = []

  package init(capacity: Int, maxInFlight: Int) {
    precondition(capacity > 0 && maxInFlight > 0, "capacity and maxInFlight must be positive")
    self.capacity = capacity
    self.maxInFlight = maxInFlight
  }

  package var free: Int { max(0, capacity - held) }
  package var queued: Int { held - inFlight }
  /// Endpoints that hold anything.
  package var busyEndpoints: some Collection<Int64> { lanes.keys }

  /// Everything queued, in no particular order.
  package var queuedItems: [Item] { lanes.values.flatMap(\.queue) }

  package func held(by endpoint: Int64) -> Int { lanes[endpoint]?.held ?? 0 }

  /// How many more an endpoint may take on now: half of what is free beyond what it holds, so that afterwards it holds at
  /// most what is still free.
  package func room(for endpoint: Int64) -> Int { max(0, (free - held(by: endpoint)) / 2) }

  /// How many more an endpoint could start at once; nil while it holds nothing, and so tells no limit.
  package func startable(for endpoint: Int64) -> Int? { lanes[endpoint].map { max(0, $0.limit - $0.held) } }

  package mutating func enqueue(_ item: Item, endpoint: Int64, limit: Int) {
    var lane = lanes.removeValue(forKey: endpoint) ?? Lane()
    lane.queue.append(item)
    lane.limit = max(1, limit)
    held += 1
    enterRing(endpoint, &lane)
    lanes[endpoint] = lane
  }

  /// Takes what may start now off the queues, one endpoint after the other, and counts it as in flight. Here, too, an
  /// endpoint may have at most as many in flight as could still be, and the last tenth of all is for those that have none:
  /// endpoints that hang leave slots for the others.
  package mutating func start() -> [Item] {
    var started: [Item] = []
    var overshare: [Int64] = []
    while inFlight < maxInFlight, let endpoint = ring.popFirst() {
      guard var lane = lanes.removeValue(forKey: endpoint) else { preconditionFailure("ring names an idle endpoint") }
      guard lane.inFlight == 0 || lane.inFlight < maxInFlight - maxInFlight / 10 - inFlight else {
        overshare.append(endpoint)
        lanes[endpoint] = lane
        continue
      }
      lane.isInRing = false
      // The limit may have been lowered since the endpoint entered the ring; it returns when something finishes.
      if lane.inFlight < lane.limit {
        started.append(lane.queue.removeFirst())
        lane.inFlight += 1
        inFlight += 1
        enterRing(endpoint, &lane)
      }
      lanes[endpoint] = lane
    }
    ring.prepend(contentsOf: overshare)
    return started
  }

  /// One of the endpoint's deliveries in flight has come to an end.
  package mutating func finish(endpoint: Int64) {
    guard var lane = lanes.removeValue(forKey: endpoint), lane.inFlight > 0 else {
      preconditionFailure("finish without start")
    }
    lane.inFlight -= 1
    inFlight -= 1
    held -= 1
    enterRing(endpoint, &lane)
    if lane.held > 0 { lanes[endpoint] = lane }
  }

  /// Takes everything queued for an endpoint off the queue; what is in flight goes on.
  package mutating func withdraw(endpoint: Int64) -> [Item] {
    guard var lane = lanes.removeValue(forKey: endpoint) else { return [] }
    let items = Array(lane.queue)
    lane.queue = []
    held -= items.count
    if lane.isInRing {
      ring.removeAll { $0 == endpoint }
      lane.isInRing = false
    }
    if lane.held > 0 { lanes[endpoint] = lane }
    return items
  }

  /// Takes everything queued off all queues.
  package mutating func withdrawAll() -> [Item] {
    ring = []
    for endpoint in lanes.keys { lanes[endpoint]?.isInRing = false }
    // In an order that is the same every time, as all decisions are.
    return lanes.keys.sorted().flatMap { withdraw(endpoint: $0) }
  }

  private mutating func enterRing(_ endpoint: Int64, _ lane: inout Lane) {
    guard !lane.isInRing, !lane.queue.isEmpty, lane.inFlight < lane.limit else { return }
    lane.isInRing = true
    ring.append(endpoint)
  }
}
