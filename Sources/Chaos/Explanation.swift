import Foundation

/// What a fault caught in flight, or something else has lost: so much may come again, once each.
struct Caught: Sendable {
  var cause: Cause
  var began: ContinuousClock.Instant
  /// Codes of pairs, sorted: a few bytes each, since there may be thousands an hour.
  var codes: [UInt64]

  init(_ incident: Incident) {
    (cause, began) = (.fault(incident.fault), incident.began)
    codes = incident.inFlight.map(\.code).sorted()
  }

  init(cause: Cause, began: ContinuousClock.Instant, codes: [UInt64]) {
    (self.cause, self.began, self.codes) = (cause, began, codes.sorted())
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

/// What each repetition is due to.
struct Explanation {
  /// As many as there are in `caught`: repetitions of it.
  private(set) var observed: [Int]
  private(set) var unexplained: [Pair] = []

  /// The last of `caught` that has it and began before a repetition explains it, each once.
  init(_ repetitions: [(code: UInt64, at: ContinuousClock.Instant)], _ caught: [Caught]) {
    observed = [Int](repeating: 0, count: caught.count)
    var used: Set<[Int]> = []
    for repetition in repetitions {
      let cause = caught.indices.reversed().first { index in
        guard caught[index].began <= repetition.at, let place = caught[index].index(of: repetition.code) else {
          return false
        }
        return used.insert([index, place]).inserted
      }
      if let cause {
        observed[cause] += 1
      } else {
        unexplained.append(Pair(code: repetition.code))
      }
    }
  }
}

/// All injections of one fault, and what they made repeat: never more than what was in flight at each of them. Of another
/// cause, all times it was there.
package struct Injections: Sendable, Codable {
  /// One of them.
  package struct One: Sendable, Codable {
    package var repeated: Int
    /// In flight at it, or lost by it: so many may have been repeated.
    package var bound: Int
  }

  package var cause: Cause
  package var count = 0
  package var bound = 0
  package var repeated = 0
  /// The one that had the most repeated.
  package var worst = One(repeated: 0, bound: 0)
  /// After how many of them more was repeated than had been in flight.
  package var exceeded = 0

  package init(_ cause: Cause) { self.cause = cause }

  mutating func add(_ one: One) {
    count += 1
    repeated += one.repeated
    bound += one.bound
    if one.repeated > worst.repeated || count == 1 { worst = one }
    if one.repeated > one.bound { exceeded += 1 }
  }

  /// One for each cause there was, in the order of ``Cause``.
  static func lines(_ caught: [Caught], _ explanation: Explanation) -> [Injections] {
    Cause.all.compactMap { cause in
      var line = Injections(cause)
      for (index, one) in caught.enumerated() where one.cause == cause {
        line.add(One(repeated: explanation.observed[index], bound: one.codes.count))
      }
      return line.count > 0 ? line : nil
    }
  }
}
