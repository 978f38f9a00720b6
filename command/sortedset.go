package command

var sortedSetRows = []Row{}
