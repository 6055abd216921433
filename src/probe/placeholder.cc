namespace rooftree::probe {}  // replaced by the probe
