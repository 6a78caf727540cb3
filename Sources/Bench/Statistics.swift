/// A figure measured several times: the middle one, and how far the others lie from it.
package struct Spread: Sendable, Codable, Equatable {
  package var median: Double
  package var low: Double
  package var high: Double

  package init(_ values: [Double]) {
    let sorted = values.sorted()
    median = sorted.percentile(0.5)
    low = sorted.first ?? .nan
    high = sorted.last ?? .nan
  }

  package func text(_ digits: Int) -> String {
    low == high ? median.text(digits) : "\(median.text(digits)) (\(low.text(digits))–\(high.text(digits)))"
  }
}

extension [Double] {
  /// Of a sorted array, by linear interpolation; nan if it is empty.
  package func percentile(_ share: Double) -> Double {
    guard !isEmpty else { return .nan }
    let place = share * Double(count - 1)
    let below = Int(place)
    guard below + 1 < count else { return self[count - 1] }
    return self[below] + (self[below + 1] - self[below]) * (place - Double(below))
  }
}

extension Double {
  /// With that many digits after the point, and thin groups of thousands before it: `12 345.6`.
  package func text(_ digits: Int) -> String {
    guard isFinite else { return "-" }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let scaled = (magnitude * scale).rounded()
    guard scaled < 1e15 else { return "\(self)" }
    let number = Int(scaled)
    let (whole, fraction) = number.quotientAndRemainder(dividingBy: Int(scale))
    var groups: [String] = []
    var rest = whole
    while rest >= 1000 {
      groups.insert(String(String(1000 + rest % 1000).dropFirst()), at: 0)
      rest /= 1000
    }
    groups.insert(String(rest), at: 0)
    let sign = self < 0 && number != 0 ? "-" : ""
    let tail = digits == 0 ? "" : "." + String(String(Int(scale) + fraction).dropFirst())
    return sign + groups.joined(separator: " ") + tail
  }
}
