namespace rooftree::validate {}  // replaced by the scoreboard
