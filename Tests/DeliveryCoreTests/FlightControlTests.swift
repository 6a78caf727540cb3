import Testing

@testable import DeliveryCore

@Suite struct FlightControlTests {
  /// What FlightControl should hold, kept the simple way.
  private struct Model {
    var queues: [Int64: [Int]] = [:]
    var inFlight: [Int64: Int] = [:]
    var limits: [Int64: Int] = [:]
    var held: Int { queues.values.reduce(0) { $0 + $1.count } + inFlight.values.reduce(0, +) }
  }

  @Test func neverLosesDuplicatesOrExceedsLimits() {
    forSeeds { random, seed in
      let (capacity, maxInFlight) = (Int.random(in: 1...200, using: &random), Int.random(in: 1...40, using: &random))
      var flight = FlightControl<(endpoint: Int64, id: Int)>(capacity: capacity, maxInFlight: maxInFlight)
      var model = Model()
      for id in 0..<600 {
        let endpoint = Int64.random(in: 0..<8, using: &random)
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4 where flight.free > 0:
          let limit = Int.random(in: 0...6, using: &random)
          flight.enqueue((endpoint, id), endpoint: endpoint, limit: limit)
          model.queues[endpoint, default: []].append(id)
          model.limits[endpoint] = max(1, limit)
        case 4..<6:
          for item in flight.start() {
            #expect(model.queues[item.endpoint]?.first == item.id, seed)
            model.queues[item.endpoint]?.removeFirst()
            model.inFlight[item.endpoint, default: 0] += 1
            #expect(model.inFlight[item.endpoint]! <= model.limits[item.endpoint]!, seed)
          }
          // Whatever could start has.
          let total = model.inFlight.values.reduce(0, +)
          let startable = model.queues.contains { endpoint, queue in
            !queue.isEmpty && model.inFlight[endpoint, default: 0] < model.limits[endpoint]!
              && (model.inFlight[endpoint, default: 0] == 0
                || model.inFlight[endpoint, default: 0] < maxInFlight - maxInFlight / 10 - total)
          }
          #expect(total == maxInFlight || !startable, seed)
        case 6..<9 where model.inFlight[endpoint, default: 0] > 0:
          flight.finish(endpoint: endpoint)
          model.inFlight[endpoint]! -= 1
        case 9:
          let all = Int.random(in: 0..<5, using: &random) == 0
          let withdrawn = all ? flight.withdrawAll() : flight.withdraw(endpoint: endpoint)
          let expected = all ? model.queues.values.flatMap { $0 } : model.queues[endpoint] ?? []
          #expect(withdrawn.map(\.id).sorted() == expected.sorted(), seed)
          for endpoint in all ? Array(model.queues.keys) : [endpoint] { model.queues[endpoint] = [] }
        default: break
        }
        check(flight, model, seed)
      }
    }
  }

  private func check<Item>(_ flight: FlightControl<Item>, _ model: Model, _ seed: Comment) {
    #expect(flight.held == model.held && flight.held <= flight.capacity, seed)
    #expect(flight.inFlight == model.inFlight.values.reduce(0, +) && flight.inFlight <= flight.maxInFlight, seed)
    #expect(flight.free == flight.capacity - flight.held && flight.queued == flight.held - flight.inFlight, seed)
    let busy = (0..<8).filter { model.queues[$0, default: []].count + model.inFlight[$0, default: 0] > 0 }
    #expect(Set(flight.busyEndpoints) == Set(busy.map { Int64($0) }), seed)
    for endpoint in Int64(0)..<8 {
      let (held, room) = (flight.held(by: endpoint), flight.room(for: endpoint))
      #expect(held == model.queues[endpoint, default: []].count + model.inFlight[endpoint, default: 0], seed)
      // After taking that on, an endpoint holds at most what is still free; one more would be too many.
      #expect(room == 0 || held + room <= flight.free - room, seed)
      #expect(room > 0 || flight.free - held < 2, seed)
    }
  }

  @Test func newcomersFindRoomHoweverManyEndpointsHang() {
    var flight = FlightControl<Int>(capacity: 10_000, maxInFlight: 10_000)
    for endpoint in Int64(0)..<8 {
      // Each takes all it may, and never finishes anything.
      while flight.room(for: endpoint) > 0 {
        for item in 0..<flight.room(for: endpoint) { flight.enqueue(item, endpoint: endpoint, limit: 10_000) }
      }
      _ = flight.start()
      #expect(flight.held(by: endpoint) <= flight.free + 1)
    }
    #expect(flight.room(for: 99) >= 10)
  }

  @Test func endpointsTakeTurns() {
    var flight = FlightControl<Int64>(capacity: 1000, maxInFlight: 100)
    for endpoint in [Int64(1), 1, 1, 1, 1, 2, 2, 3] { flight.enqueue(endpoint, endpoint: endpoint, limit: 4) }
    #expect(flight.start() == [1, 2, 3, 1, 2, 1, 1])
    flight.finish(endpoint: 1)
    #expect(flight.start() == [1])
  }

  @Test func endpointsThatHangLeaveSlotsForANewcomer() {
    var flight = FlightControl<Int64>(capacity: 10_000, maxInFlight: 1000)
    for endpoint in Int64(1)...100 {
      for _ in 0..<32 { flight.enqueue(endpoint, endpoint: endpoint, limit: 32) }
      _ = flight.start()
    }
    #expect(flight.inFlight < 1000)
    flight.enqueue(777, endpoint: 777, limit: 32)
    #expect(flight.start() == [777])
  }

  @Test func loweredLimitHoldsForWhatIsQueued() {
    var flight = FlightControl<Int>(capacity: 100, maxInFlight: 100)
    for item in 0..<4 { flight.enqueue(item, endpoint: 1, limit: 4) }
    #expect(flight.start().count == 4)
    for _ in 0..<2 { flight.finish(endpoint: 1) }
    flight.enqueue(4, endpoint: 1, limit: 4)
    flight.enqueue(5, endpoint: 1, limit: 1)
    #expect(flight.start() == [])
    for _ in 0..<2 { flight.finish(endpoint: 1) }
    #expect(flight.start() == [4])
    flight.finish(endpoint: 1)
    #expect(flight.start() == [5])
  }

  @Test func withdrawingAllOfManyEndpointsLeavesThemUsable() {
    var flight = FlightControl<Int64>(capacity: 100_000, maxInFlight: 1)
    for endpoint in Int64(0)..<20_000 { flight.enqueue(endpoint, endpoint: endpoint, limit: 1) }
    let started = flight.start()
    #expect(Set(flight.withdrawAll() + started).count == 20_000 && flight.held == 1)
    flight.finish(endpoint: started[0])
    flight.enqueue(7, endpoint: 7, limit: 1)
    #expect(flight.start() == [7])
  }
}
