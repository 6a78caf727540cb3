import Foundation

/// What a fault caught in flight: so much may come again, once each.
struct Caught: Sendable {
  var fault: Fault
  var began: ContinuousClock.Instant
  /// Codes of pairs, sorted: a few bytes each, since there may be thousands an hour.
  var codes: [UInt64]

  init(_ incident: Incident) {
    (fault, began) = (incident.fault, incident.began)
    codes = incident.inFlight.map(\.code).sorted()
  }

  init(fault: Fault, began: ContinuousClock.Instant, codes: [UInt64]) {
    (self.fault, self.began, self.codes) = (fault, began, codes.sorted())
  }

  fileprivate func index(of code: UInt64) -> Int? {
    var (low, high) = (0, codes.count)
    while low < high {
      let middle = (low + high) / 2
      if codes[middle] < code { low = middle + 1 } else { high = middle }
    }
    return low < codes.count && codes[low] == code ? low : nil
  }
}

/// Which fault each repetition is due to.
struct Explanation {
  /// As many as there are faults: repetitions of what it caught.
  private(set) var observed: [Int]
  private(set) var unexplained: [Pair] = []

  /// The latest fault before a repetition that caught it explains it, each fault once.
  init(_ repetitions: [(code: UInt64, at: ContinuousClock.Instant)], _ caught: [Caught]) {
    observed = [Int](repeating: 0, count: caught.count)
    var used: Set<[Int]> = []
    for repetition in repetitions {
      let fault = caught.indices.reversed().first { index in
        guard caught[index].began <= repetition.at, let place = caught[index].index(of: repetition.code) else {
          return false
        }
        return used.insert([index, place]).inserted
      }
      if let fault {
        observed[fault] += 1
      } else {
        unexplained.append(Pair(code: repetition.code))
      }
    }
  }
}

/// All injections of one fault, and what they made repeat: never more than what was in flight at each of them.
package struct Injections: Sendable, Codable {
  /// One of them.
  package struct One: Sendable, Codable {
    package var repeated: Int
    /// In flight at it: so many may have been repeated.
    package var bound: Int
  }

  package var fault: Fault
  package var count = 0
  package var bound = 0
  package var repeated = 0
  /// The one that had the most repeated.
  package var worst = One(repeated: 0, bound: 0)
  /// After how many of them more was repeated than had been in flight.
  package var exceeded = 0

  package init(fault: Fault) { self.fault = fault }

  mutating func add(_ one: One) {
    count += 1
    repeated += one.repeated
    bound += one.bound
    if one.repeated > worst.repeated || count == 1 { worst = one }
    if one.repeated > one.bound { exceeded += 1 }
  }

  /// One for each fault that was made, in the order of ``Fault``.
  static func lines(_ caught: [Caught], _ explanation: Explanation) -> [Injections] {
    Fault.allCases.compactMap { fault in
      var line = Injections(fault: fault)
      for (index, one) in caught.enumerated() where one.fault == fault {
        line.add(One(repeated: explanation.observed[index], bound: one.codes.count))
      }
      return line.count > 0 ? line : nil
    }
  }
}
